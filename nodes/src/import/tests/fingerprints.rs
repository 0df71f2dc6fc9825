//! The name of a part that a host hands in.

use vocable_host_sdk::abi::SilentHost;

use super::super::{HostTensors, Settings, fingerprint};
use super::*;

fn name_of(kind: StateKind, tensors: StateDict, settings: &SettingsMap) -> String {
    let settings = Settings::new(kind, settings.clone()).unwrap();
    let host = SilentHost::default();
    fingerprint::of(&HostTensors::new(tensors, |_| true).unwrap(), &settings, &HostContext::new(&host))
        .unwrap()
}

fn weight(name: &str, values: Vec<f32>) -> (String, TensorBuf) {
    (name.to_string(), TensorBuf::from_vec_f32(&[values.len()], values).unwrap())
}

#[test]
fn a_part_is_named_by_all_that_decides_what_it_computes() {
    let zeros = || vec![weight("weight", vec![0.0; 10_000])];
    let texts = |more: &[(&str, &str)]| -> SettingsMap {
        more.iter().map(|(name, text)| (name.to_string(), Value::from(*text))).collect()
    };
    let of = |kind, more: &[(&str, &str)]| name_of(kind, zeros(), &texts(more));
    use StateKind::{Clip, Model};
    let plain = of(Model, &[]);
    let mut middle = vec![0.0; 10_000];
    middle[5_000] = 1.0;
    assert_ne!(name_of(Model, vec![weight("weight", middle)], &texts(&[])), plain, "a number in the middle");
    assert_ne!(of(Model, &[("scheduler", r#"{"prediction_type": "v_prediction"}"#)]), plain);
    assert_ne!(of(Model, &[("names", "comfyui")]), plain);
    assert_eq!(
        of(Model, &[("name", "another"), ("device", "cpu")]),
        plain,
        "what it is called does not count"
    );

    let folder = tempfile::tempdir().unwrap();
    let tokenizer = [("tokenizer", folder.path().to_str().unwrap())];
    std::fs::write(folder.path().join("merges.txt"), "a b").unwrap();
    let before = of(Clip, &tokenizer);
    assert_eq!(of(Clip, &tokenizer), before);
    std::fs::write(folder.path().join("merges.txt"), "a c").unwrap();
    assert_ne!(of(Clip, &tokenizer), before);
}

#[test]
fn every_noise_level_counts() {
    let of = |sigmas: Vec<f32>| {
        let sigmas = TensorBuf::from_vec_f32(&[sigmas.len()], sigmas).unwrap();
        name_of(StateKind::Model, Vec::new(), &settings([("sigmas", sigmas.into())]))
    };
    let mut levels: Vec<f32> = (1..=1000).map(|i| i as f32).collect();
    let plain = of(levels.clone());
    levels[617] = levels[617].next_up();
    assert_ne!(of(levels), plain);
}

#[test]
fn order_and_strides_do_not_count() {
    let of = |tensors| name_of(StateKind::Vae, tensors, &settings([]));
    let (a, b) = (weight("a", vec![1.0]), weight("b", vec![2.0]));
    let plain = of(vec![a.clone(), b.clone()]);
    assert_eq!(of(vec![b.clone(), a.clone()]), plain);
    assert_ne!(of(vec![("b".to_string(), a.1), ("a".to_string(), b.1)]), plain);
    // Always the same number, whatever process finds it.
    assert_eq!(plain, "22f45441fdeff9031dd87b823d921476");

    let rows = TensorBuf::from_vec_f32(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let columns = super::weights::transposed(&[3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let of = |tensor| of(vec![("a".to_string(), tensor)]);
    assert_eq!(of(columns), of(rows));
}
