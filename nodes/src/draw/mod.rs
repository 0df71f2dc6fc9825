//! Drawings: the loss plot and the contact sheet. Letters are bitmaps of the crate `embedded-graphics`, so no system font is needed.

mod canvas;
mod chart;
mod sheet;

pub(crate) use chart::loss_chart;
pub(crate) use sheet::{Row, SheetOptions, contact_sheet};
