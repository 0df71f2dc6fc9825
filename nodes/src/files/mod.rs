//! Files: pictures the right way up, names as ComfyUI gives them, written whole or not at all.

mod atomic;
mod naming;
mod picture;
mod png_text;

pub(crate) use atomic::write_atomically;
pub(crate) use naming::{Slot, free_place};
pub(crate) use picture::{Picture, read_picture, save_pictures};
pub(crate) use png_text::graph_texts;
