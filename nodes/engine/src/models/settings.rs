//! Settings of a configuration that would make another network than ours.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Everything in a configuration that no field of ours takes.
pub(crate) type OtherSettings = Map<String, Value>;

/// Refuse by name what is not at the value that leaves the network as it is. `null` is always that.
pub(crate) fn refuse_others(
    part: &str,
    origin: &str,
    others: &OtherSettings,
    neutral: &[(&str, Value)],
) -> Result<()> {
    let strange = neutral.iter().find_map(|(name, neutral)| {
        let found = others.get(*name).filter(|found| !found.is_null() && *found != neutral)?;
        Some(format!("{name} is {found}, known is only {neutral}"))
    });
    match strange {
        None => Ok(()),
        Some(what) => Err(Error::incompatible(format!(
            "{origin}: this {part} is not of a structure that is known: {what}"
        ))
        .help("Vocable reads models of Stable Diffusion 1's structure")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changes_the_network_is_refused_by_name() {
        let others = |value: Value| value.as_object().unwrap().clone();
        let neutral = [("act_fn", json!("silu")), ("time_cond_proj_dim", json!(null))];
        for fine in [json!({}), json!({"act_fn": "silu", "time_cond_proj_dim": null, "sample_size": 64})] {
            assert!(refuse_others("UNet", "x", &others(fine), &neutral).is_ok());
        }
        let error =
            refuse_others("UNet", "x", &others(json!({"time_cond_proj_dim": 256})), &neutral).unwrap_err();
        assert!(error.message.contains("time_cond_proj_dim is 256"), "{error}");
    }
}
