//! Pictures in files: reading them the right way up, naming them as ComfyUI does, writing them whole or not at all.

mod atomic;
mod naming;
mod picture;
mod png_text;

pub(crate) use atomic::write_atomically;
pub(crate) use naming::Slot;
pub(crate) use picture::{Picture, read_picture, save_pictures};
pub(crate) use png_text::graph_texts;
