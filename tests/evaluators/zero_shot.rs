//! Zero-shot classification.

use flip::evaluator::ClassesConfig;
use proptest::prelude::*;

use super::{metric, naive_dot, named, ranking, whole_numbers, zero_shot, World};

#[test]
fn zero_shot_averages_templates_before_it_normalises() {
    // Of class a the two prompts point to x and y: their mean is the diagonal, as long as the others.
    let world = World::new(3)
        .text("a", &[1.0, 0.0, 0.0])
        .text("the a", &[0.0, 1.0, 0.0])
        .text("b", &[0.0, 0.0, 1.0])
        .text("the b", &[0.0, 0.0, 1.0])
        // 0.707 to a, 0.65 to b; were the mean not normalised, 0.5 to a.
        .image(&[0.5, 0.5, 0.65], &[""], Some(0))
        .image(&[0.1, 0.1, 0.9], &[""], Some(0))
        .image(&[0.0, 0.0, 1.0], &[""], Some(1))
        .image(&[0.0, 0.0, 1.0], &[""], None)
        .image(&[0.0, 0.0, 1.0], &[""], Some(-1));
    let result = world.evaluate(&named(&["a", "b"], &["{}", "the {}"]), &[], 2, 1.0).expect("a result");
    assert_eq!(
        (result.kind.as_str(), result.dataset.as_str(), result.task.as_str()),
        ("zero_shot", "hand", "label")
    );
    assert_eq!(result.n, 3);
    assert_eq!(metric(&result, "top1"), 2.0 / 3.0);
    assert_eq!(metric(&result, "top5"), 1.0);
    assert_eq!(metric(&result, "mean_per_class"), 0.75);
    assert_eq!(metric(&result, "unlabelled"), 2.0);
    assert_eq!(metric(&result, "chance"), 0.5);
    let per_class: Vec<_> = result.per_class.iter().map(|c| (c.name.as_str(), c.n, c.top1)).collect();
    assert_eq!(per_class, [("a", 2, 0.5), ("b", 1, 1.0)]);
}

#[test]
fn zero_shot_ties_go_to_the_lowest_index_and_top5_counts_five() {
    let names: Vec<String> = (0..7).map(|class| format!("class {class}")).collect();
    let mut world = World::new(2);
    for name in &names {
        world = world.text(name, &[1.0, 0.0]);
    }
    for label in 0..7 {
        world = world.image(&[1.0, 0.0], &[""], Some(label));
    }
    let config = zero_shot(ClassesConfig::Source { templates: Some(vec!["{}".into()]) });
    let result = world.evaluate(&config, &names, 3, 1.0).expect("a result");
    assert_eq!(metric(&result, "top1"), 1.0 / 7.0);
    assert_eq!(metric(&result, "top5"), 5.0 / 7.0);
    assert_eq!(result.per_class[0].top1, 1.0);
}

proptest! {
    #[test]
    fn zero_shot_equals_sorting(
        (classes, images, labels) in (1usize..30, 1usize..40).prop_flat_map(|(classes, images)| (
            whole_numbers(classes, 6),
            whole_numbers(images, 6),
            prop::collection::vec(0..classes, images),
        )),
        size in 1usize..40,
    ) {
        let names: Vec<String> = (0..classes.len()).map(|class| class.to_string()).collect();
        let mut world = World::new(6);
        for (name, embedding) in names.iter().zip(&classes) {
            world.texts.insert(name.clone(), embedding.clone());
        }
        for (image, &label) in images.iter().zip(&labels) {
            world.images.push((image.clone(), Vec::new(), Some(label as i64)));
        }
        let config = zero_shot(ClassesConfig::Source { templates: Some(vec!["{}".into()]) });
        let result = world.evaluate(&config, &names, size, 1.0).expect("a result");
        let unit: Vec<Vec<f32>> = classes
            .iter()
            .map(|class| class.iter().map(|value| value / (naive_dot(class, class).sqrt() + 1e-8)).collect())
            .collect();
        for (name, k) in [("top1", 1), ("top5", 5)] {
            let right = images.iter().zip(&labels).filter(|(i, l)| ranking(i, &unit).iter().take(k).any(|c| c == *l));
            prop_assert_eq!(metric(&result, name), right.count() as f64 / images.len() as f64);
        }
    }
}
