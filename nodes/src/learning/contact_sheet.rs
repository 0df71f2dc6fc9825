//! **Contact Sheet**: the pictures that were learned from, and what a prompt gave before and after, on one page.

use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, TensorBuf,
};

use super::{CATEGORY, choice};
use crate::draw::{Row, SheetOptions, contact_sheet};

/// Puts pictures onto one page.
pub(crate) struct ContactSheet;

const ROWS: [&str; 3] = ["concept", "before", "after"];

struct ContactSheetInputs {
    images: [Option<TensorBuf>; 3],
    labels: Vec<String>,
    options: SheetOptions,
}

impl ContactSheetInputs {
    fn parse(inputs: &Inputs) -> Result<Self, NodeError> {
        let mut images = [const { None }; 3];
        for (image, name) in images.iter_mut().zip(ROWS) {
            *image = inputs.optional_tensor(name)?.cloned();
        }
        Ok(Self {
            images,
            labels: inputs
                .optional_string("labels")?
                .unwrap_or(LABELS)
                .lines()
                .map(|line| line.trim().to_string())
                .collect(),
            options: SheetOptions {
                size: inputs.optional_count("picture_size")?.unwrap_or(192),
                columns: inputs.optional_count("columns")?.unwrap_or(8),
                nearest: choice(inputs, "enlarge", &ENLARGE)?.unwrap_or(true),
            },
        })
    }
}

/// Whether pictures are enlarged by whole pixels, by name.
const ENLARGE: [(&str, bool); 2] = [("nearest", true), ("smooth", false)];

const LABELS: &str = "what it learned from\nbefore learning\nafter learning";

impl Node for ContactSheet {
    fn spec(&self) -> NodeSpec {
        let row = |name: &str, what: &str| InputSpec::new(name, "IMAGE").tooltip(what);
        NodeSpec::new("VocableContactSheet", "Contact Sheet")
            .category(CATEGORY)
            .description("Puts the concept's pictures and pictures from before and after learning onto one page with captions.")
            .search_aliases(["image grid", "comparison", "before after"])
            .input(row("after", "Pictures made after learning."))
            .input(row("before", "Pictures made before learning, from the same prompt and seed.").optional())
            .input(row("concept", "The pictures that were learned from.").optional())
            .input(
                InputSpec::string("labels")
                    .default(LABELS)
                    .multiline()
                    .optional()
                    .tooltip("Captions, one on each line: of the concept's pictures, of those before, of those after."),
            )
            .input(
                InputSpec::int("picture_size")
                    .default(192)
                    .range(16, 2048)
                    .optional()
                    .tooltip("The longer side of each picture on the page, in pixels."),
            )
            .input(InputSpec::int("columns").default(8).range(1, 64).optional().tooltip("Most pictures side by side."))
            .input(InputSpec::combo("enlarge", ENLARGE.map(|(name, _)| name)).default("nearest").optional().tooltip(
                "How small pictures are enlarged: by whole pixels, up to `picture_size`, or smoothly, just to it.",
            ))
            .output(OutputSpec::new("IMAGE", "IMAGE").tooltip("The page."))
    }

    fn execute(&self, inputs: Inputs, _host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let ContactSheetInputs { images, labels, options } = ContactSheetInputs::parse(&inputs)?;
        let rows: Vec<Row<'_>> = ROWS
            .into_iter()
            .zip(&images)
            .enumerate()
            .filter_map(|(index, (name, images))| {
                let caption = labels.get(index).cloned().unwrap_or_default();
                Some(Row { caption, name, images: images.as_ref()? })
            })
            .collect();
        if rows.is_empty() {
            return Err(NodeError::invalid_input("input `after` is missing"));
        }
        Ok(Outputs::one(contact_sheet(&rows, options)?.into_image()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Home;

    #[test]
    fn rows_stand_in_order_and_may_be_missing() {
        let home = Home::new();
        let picture = |batch: usize, value: f32| {
            TensorBuf::from_vec_f32(&[batch, 32, 32, 3], vec![value; batch * 32 * 32 * 3]).unwrap()
        };
        let all = Inputs::new()
            .with("after", picture(4, 0.2))
            .with("before", picture(4, 0.8))
            .with("concept", picture(5, 0.5));
        let page = home.run(&ContactSheet, all).unwrap().results[0].as_tensor().unwrap().clone();
        assert_eq!(page.dims()[2], 5 * 192 + 4 * 8 + 40);
        if let Some(folder) = std::env::var_os("VOCABLE_KEEP") {
            let bytes = page.to_vec_f32().unwrap().iter().map(|value| (value * 255.0) as u8).collect();
            let page =
                image::RgbImage::from_raw(page.dims()[2] as u32, page.dims()[1] as u32, bytes).unwrap();
            page.save(std::path::Path::new(&folder).join("contact_sheet.png")).unwrap();
        }
        let one = home.run(&ContactSheet, Inputs::new().with("after", picture(1, 0.2))).unwrap();
        assert!(one.results[0].as_tensor().unwrap().dims()[1] < page.dims()[1] / 2);
        assert!(home.run(&ContactSheet, Inputs::new()).is_err());
    }
}
