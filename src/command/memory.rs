//! Memory that a recipe needs, beside what this process may have.

use crate::device::HostMemory;
use crate::recipe::forecast::StageForecast;
use crate::recipe::Recipe;
use crate::terminal::bytes;

/// The training stages that need more memory than this process may have, or the model alone where none trains; each
/// with what needs less.
pub fn beyond(recipe: &Recipe, stages: &[StageForecast], gpu: bool, host: HostMemory) -> Vec<String> {
    let HostMemory { bytes: most, limit } = host;
    let told = |field: String, needed: f64, parts: &str, advice: &str| {
        (needed > most as f64).then(|| {
            let (needed, most) = (bytes(needed), bytes(most as f64));
            format!("{field}: needs about {needed} of memory{parts}, and {limit} {most}; {advice}")
        })
    };
    let of_stage = |(index, stage): (usize, &StageForecast)| {
        let memory = &stage.training()?.memory;
        let needed = if gpu { memory.beside_gpu() } else { memory.total };
        let parts = memory.parts();
        let (name, size) = parts.iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let most = if gpu { String::new() } else { format!(" ({name} {})", bytes(*size)) };
        let advice = "a smaller micro_batch or batch, `recompute: Blocks` or a smaller model needs less";
        told(format!("stages[{index}]"), needed, &most, advice)
    };
    let model = 4.0 * recipe.model.parameter_counts().total() as f64;
    let of_model = told("model".into(), model, " for its parameters", "a smaller model needs less");
    let of_stages: Vec<String> = stages.iter().enumerate().filter_map(of_stage).collect();
    if of_stages.is_empty() {
        of_model.filter(|_| !gpu).into_iter().collect()
    } else {
        of_stages
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::recipe::forecast::forecast;

    #[test]
    fn more_memory_than_there_is_is_told_with_both_numbers() {
        let mut recipe = crate::recipe::read(Path::new("recipes/quickstart.ron"), &[]).unwrap();
        let limit = crate::device::MemoryLimit::ControlGroup;
        let told = |recipe: &Recipe, bytes: u64, gpu: bool| {
            beyond(recipe, &forecast(recipe), gpu, HostMemory { bytes, limit })
        };
        assert_eq!(told(&recipe, 1 << 40, false), Vec::<String>::new());
        let small = told(&recipe, 1 << 20, false);
        assert!(small[0].starts_with("stages[0]: needs about"), "{small:?}");
        assert!(small[0].contains("control group") && small[0].contains("1.00 MiB"), "{small:?}");
        // Sizes whose exact count would overflow.
        recipe.model.image.width = 1 << 20;
        recipe.model.image.depth = 1 << 12;
        recipe.model.text.width = 1 << 20;
        recipe.model.text.depth = 1 << 12;
        for stage in &mut recipe.stages {
            if let crate::train::Stage::Pretrain(config) = stage {
                config.batch = std::num::NonZeroUsize::new(16_777_216).unwrap();
                config.micro_batch = None;
            }
        }
        let huge = told(&recipe, 1 << 50, false);
        assert!(huge[0].starts_with("stages[0]: needs about") && huge[0].contains("EiB"), "{huge:?}");
        recipe.stages.clear();
        assert!(told(&recipe, 1 << 40, false)[0].starts_with("model: needs about"));
        assert!(told(&recipe, 1 << 40, true).is_empty());
    }
}
