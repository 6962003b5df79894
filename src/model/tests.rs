use super::*;
use crate::data::tokenizer::TokenizerConfig;
use crate::mask::Kept;
use crate::optimizer::{AdamW, AdamWConfig};
use dfdx::prelude::*;
use rand::Rng;
use std::time::Instant;

#[test]
fn speed() {
    let config: ModelConfig = ModelConfig {
        image: serde_json::from_str(r#"{"size":32,"patch":8,"width":64,"depth":2,"heads":2}"#).unwrap(),
        text: serde_json::from_str(
            r#"{"tokenizer":{"WordPiece":"x"},"vocab_size":256,"context":16,"width":64,"depth":1,"heads":2}"#,
        )
        .unwrap(),
        embed_dim: 64,
        normalisation: Default::default(),
        logit_scale: Default::default(),
    };
    let dev = Cpu::default();
    if std::env::var("CACHE").is_ok() {
        dev.enable_cache();
    }
    let mut flip = Flip::<f32, Cpu>::new(&dev, &config, 0).unwrap();
    let mut rng = crate::seed::rng(0, crate::seed::Purpose::Bench, 0, 0);
    let b = 128;
    let images = ImageInput {
        patches: PatchValues::Bytes((0..b * 8 * 192).map(|_| rng.gen()).collect()),
        kept: Kept { ids: (0..b).flat_map(|_| (0..8).map(|i| 2 * i)).collect(), batch: b, kept: 8, of: 16 },
        grid: 4,
    };
    let texts =
        TextInput { tokens: (0..b * 16).map(|_| rng.gen_range(0..256)).collect(), kept: Kept::all(b, 16) };
    let mut adam = AdamW::new(&AdamWConfig::default());
    let t = |s: &str, i: Instant| println!("{s} {:.2} ms", i.elapsed().as_secs_f64() * 1e3);
    for k in 0..100 {
        let i = Instant::now();
        let mut out =
            flip.loss_and_gradients(std::slice::from_ref(&images), std::slice::from_ref(&texts)).unwrap();
        t("grad", i);
        let i = Instant::now();
        adam.update(flip.parameters_mut(), &mut out.gradients, 1e-3).unwrap();
        t("adam", i);
        println!("loss {}", out.loss);
        if k == 99 {
            let i = Instant::now();
            flip.embed_images(&images).unwrap();
            t("embed i", i);
            let i = Instant::now();
            flip.embed_texts(&texts).unwrap();
            t("embed t", i);
        }
    }
    println!("{:?} {}", config.parameter_counts(), config.flops_per_pair(8, 16, 128) * 128.0 / 1e9);
}
