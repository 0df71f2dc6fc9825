//! What cannot be honoured is refused by name.

use super::*;

#[test]
fn settings_that_are_not_known_are_refused_by_name() {
    let home = Home::new();
    let refused = |kind, settings: &[(&str, Value)]| {
        let settings = settings.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        hand_in(&home, kind, Vec::new(), &settings).unwrap_err().message
    };
    use StateKind::{Clip, Model, Vae};
    assert!(refused(Vae, &[("quantisation", "int8".into())]).contains("`quantisation` of a VAE"));
    assert!(refused(Vae, &[]).contains("`config`"));
    assert!(refused(Vae, &[("config", "[]".into())]).contains("configuration"));
    let config = "{\"block_out_channels\":[32],\"layers_per_block\":1}";
    assert!(refused(Vae, &[("config", config.into())]).contains("missing"));

    let names = ("names", Value::from("comfyui"));
    let comfyui = |kind, name: &str, value: Value| refused(kind, &[names.clone(), (name, value)]);
    assert!(comfyui(Vae, "config", "{}".into()).contains("`config` of a VAE"));
    assert!(comfyui(Clip, "tokenizer", "here".into()).contains("`tokenizer` of a CLIP"));
    assert!(comfyui(Model, "stop_at_clip_layer", (-1).into()).contains("`stop_at_clip_layer` of a MODEL"));
    assert!(comfyui(Model, "latent_scale", 0.13.into()).contains("`prediction_type`"));
    let error = comfyui(Model, "prediction_type", "edm".into());
    assert!(error.contains("`edm`") && error.contains("epsilon or v_prediction"), "{error}");
    let error = refused(Vae, &[("names", "onnx".into())]);
    assert!(error.contains("`onnx`") && error.contains("diffusers or comfyui"), "{error}");
    for layer in [Value::from(0), 1.into(), "-1".into(), 0.5.into()] {
        assert!(comfyui(Clip, "stop_at_clip_layer", layer).contains("below 0"));
    }
    let epsilon = ("prediction_type", Value::from("epsilon"));
    let model = |name: &str, value: Value| refused(Model, &[names.clone(), epsilon.clone(), (name, value)]);
    for scale in [Value::from(0.0), f64::NAN.into(), "1".into()] {
        assert!(model("latent_scale", scale).contains("`latent_scale` of the MODEL"));
    }
    let levels = |numbers: Vec<f32>| Value::from(TensorBuf::from_vec_f32(&[numbers.len()], numbers).unwrap());
    assert!(model("sigmas", vec![Value::from(1.0)].into()).contains("`sigmas`"));
    assert!(model("sigmas", TensorBuf::from_vec(&[2], vec![0i64, 1]).unwrap().into()).contains("f32"));
    assert!(model("sigmas", levels(vec![2.0, 1.0])).contains("1 at timestep 1 is below 2"));
}

#[test]
fn what_other_models_hand_in_is_refused_by_what_it_is() {
    let home = Home::new();
    let tensors = |shapes: &[(&str, &[usize])]| -> StateDict {
        let zeros =
            |shape: &[usize]| TensorBuf::from_vec_f32(shape, vec![0.0; shape.iter().product()]).unwrap();
        shapes.iter().map(|(name, shape)| (name.to_string(), zeros(shape))).collect()
    };
    let refused = |kind, shapes: &[(&str, &[usize])]| {
        let settings = match kind {
            StateKind::Model => settings([("prediction_type", "epsilon".into())]),
            _ => settings([]),
        };
        let error = hand_in(&home, kind, tensors(shapes), &settings).unwrap_err();
        assert_eq!(error.kind, vocable_host_sdk::abi::ErrorKind::Incompatible, "{error}");
        format!("{error} {}", error.help)
    };
    use StateKind::{Clip, Model, Vae};
    for (shapes, what) in [
        (&[("diffusion_model.double_blocks.0.x", &[1][..])][..], "Flux"),
        (&[("model.diffusion_model.joint_blocks.0.x", &[1])], "Stable Diffusion 3"),
        (&[("diffusion_model.clip_txt_mapper.weight", &[1])], "Stable Cascade"),
        (
            &[
                ("diffusion_model.label_emb.0.0.weight", &[1, 1]),
                ("diffusion_model.input_blocks.9.0.op.weight", &[1]),
            ],
            "the refiner of SDXL",
        ),
        (
            &[("diffusion_model.x_embedder.weight", &[1])],
            "known are Stable Diffusion 1, Stable Diffusion 2, Stable Diffusion XL",
        ),
        (&[("encoder.conv_in.weight", &[1])], "state dict of `model.model`"),
        (&[("diffusion_model.input_blocks.0.0.weight", &[1]), ("embedder.weight", &[1])], "embedder.weight"),
    ] {
        let error = refused(Model, shapes);
        assert!(error.contains(what), "{error}");
    }
    for (towers, what) in [
        (&["clip_g"][..], "clip_g"),
        (&["clip_l", "t5xxl"], "clip_l, t5xxl"),
        (&["clip_g", "clip_l", "t5xxl"], "t5xxl"),
        (&["llama"], "Stable Diffusion XL (clip_l and clip_g)"),
        (&["clip_l"], "clip_l.transformer.text_model.embeddings.token_embedding.weight is missing"),
    ] {
        let names: Vec<String> = towers.iter().map(|tower| format!("{tower}.transformer.x")).collect();
        let shapes: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[1][..])).collect();
        let error = refused(Clip, &shapes);
        assert!(error.contains(what), "{error}");
    }
    assert!(refused(Clip, &[("clip_l.proj", &[1])]).contains("clip_l.proj"));
    let table = "clip_l.transformer.text_model.embeddings.token_embedding.weight";
    let layer = "clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight";
    for (shapes, what) in [
        ([(table, &[][..]), (layer, &[8, 8])], format!("{table} has shape []")),
        ([(table, &[8]), (layer, &[8, 8])], format!("{table} has shape [8]")),
        ([(table, &[8, 8]), (layer, &[])], format!("{layer} has shape []")),
    ] {
        let error = refused(Clip, &shapes);
        assert!(error.contains(&what), "{error}");
    }
    for (name, shape, what) in [
        ("decoder.conv_in.weight", &[8, 16, 3, 3][..], "16 channels"),
        ("decoder.conv_in.weight", &[8, 16, 3, 3, 3], "videos"),
        ("taesd_decoder.1.weight", &[1], "TAESD"),
        ("something", &[1], "encoder.down.0"),
    ] {
        let error = refused(Vae, &[(name, shape)]);
        assert!(error.contains(what), "{error}");
    }
}
