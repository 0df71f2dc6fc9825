//! Files: pictures the right way up, and names as ComfyUI gives them.

mod naming;
mod picture;
mod png_text;

pub(crate) use naming::{Slot, free_place, make_folder};
pub(crate) use picture::{Picture, read_picture, save_pictures};
pub(crate) use png_text::graph_texts;
