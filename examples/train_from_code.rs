//! The training loop in plain sight: a source, a loader, masks, a model, an optimizer - without a recipe.
//!
//!     cargo run --release --example train_from_code

use std::error::Error;
use std::sync::Arc;

use dfdx::tensor::Cpu;
use flip::data::decode::Transform;
use flip::data::load::{first_captions, LabelFrom, Loader, LoaderOptions, Passes, Share};
use flip::data::source::scenes::Scenes;
use flip::data::source::Order;
use flip::data::storage::StallTimeout;
use flip::data::text::Tokenizer;
use flip::data::{AugmentConfig, ScenesConfig, ScenesLevel, ScenesSplit};
use flip::mask::{ImageMask, Kept, Ratio};
use flip::model::{gather_patches, Flip, ImageInput, ModelConfig, PatchValues, TextInput};
use flip::optimizer::{AdamW, AdamWConfig};

const MODEL: &str = r#"(
    image: (size: 32, patch: 8, width: 64, depth: 2, heads: 2),
    text: (tokenizer: Train((captions: 2000)), vocab_size: 400, context: 16, width: 64, depth: 1, heads: 2),
    embed_dim: 64,
)"#;
const SEED: u64 = 0;
const BATCH: usize = 64;
const STEPS: u64 = 60;

fn main() -> Result<(), Box<dyn Error>> {
    let config: ModelConfig = ron::from_str(MODEL)?;
    let (size, patch, context) = (config.image.size, config.image.patch, config.text.context);
    let grid = size / patch;

    let scenes = Arc::new(Scenes::new(
        &ScenesConfig { size, split: ScenesSplit::Train, level: ScenesLevel::Plain, samples: None },
        SEED,
    )?);
    let captions = first_captions(scenes.as_ref(), 2000)?;
    let tokenizer = Arc::new(Tokenizer::train(captions.into_iter(), config.text.vocab_size)?);
    let mut loader = Loader::start(LoaderOptions {
        source: scenes,
        order: Order::Shuffled { seed: SEED },
        passes: Passes::Endless,
        share: Share::WHOLE,
        lanes: Vec::new(),
        batches: None,
        start: Default::default(),
        batch: BATCH,
        keep_partial: false,
        transform: Transform::Train { size, augment: AugmentConfig { flip: false, ..Default::default() } },
        patches: None,
        tokenizer,
        context,
        label: LabelFrom::None,
        filter: None,
        limits: Default::default(),
        workers: 1,
        stall_timeout: StallTimeout::default(),
        seed: SEED,
    })?;

    let mut model = Flip::<f32, Cpu>::new(&Cpu::default(), &config, SEED)?;
    let mut optimizer = AdamW::new(&AdamWConfig::default());
    let mask = ImageMask::Random(Ratio::try_from(0.5)?);
    for step in 0..STEPS {
        let batch = loader.next()?.ok_or("the scenes are endless")?;
        let kept = mask.draw(grid, BATCH, SEED, step, 0);
        let patches = PatchValues::Bytes(gather_patches(&batch.pixels, size, patch, &kept));
        let images = ImageInput { patches, kept, grid };
        let texts = TextInput { tokens: batch.tokens, kept: Kept::all(BATCH, context) };
        let update = model.loss_and_gradients(&[images], &[texts])?;
        optimizer.update(&mut model, update.gradients, 1e-3, 1.0)?;
        if step % 10 == 0 || step + 1 == STEPS {
            println!("step {step:3}  loss {:.3}", update.loss);
        }
    }
    Ok(())
}
