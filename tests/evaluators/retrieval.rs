//! Retrieval.

use flip::evaluator::RetrievalCaptions;
use proptest::prelude::*;

use super::{metric, ranking, retrieval, whole_numbers, World};

#[test]
fn retrieval_of_two_images_with_two_captions_each() {
    // Similarities:      p0   p1
    //   "p0 first"       0.9  0.8   found at 1 by both
    //   "p0 second"      0.1  0.2   image 1 comes before its own
    //   "p1 first"       0.95 0.5   image 0 comes before its own, and it comes before "p0 first" for p0
    //   "p1 second"      0.0  0.7
    let world = World::new(2)
        .image(&[1.0, 0.0], &["p0 first", "p0 second"], None)
        .image(&[0.0, 1.0], &["p1 first", "p1 second"], None)
        .text("p0 first", &[0.9, 0.8])
        .text("p0 second", &[0.1, 0.2])
        .text("p1 first", &[0.95, 0.5])
        .text("p1 second", &[0.0, 0.7]);
    for size in [1, 2] {
        let result = world.evaluate(&retrieval(RetrievalCaptions::All), &[], size, 1.0).expect("a result");
        assert_eq!((result.kind.as_str(), result.n, metric(&result, "captions")), ("retrieval", 2, 4.0));
        // p0: "p1 first" comes first. p1: "p0 first" (0.8) comes before its best own (0.7).
        assert_eq!(metric(&result, "image_to_text_recall_at_1"), 0.0);
        assert_eq!(metric(&result, "image_to_text_recall_at_5"), 1.0);
        assert_eq!(metric(&result, "text_to_image_recall_at_1"), 0.5);
        assert_eq!(metric(&result, "text_to_image_recall_at_5"), 1.0);
        let first = world.evaluate(&retrieval(RetrievalCaptions::First), &[], size, 1.0).expect("a result");
        assert_eq!(metric(&first, "captions"), 2.0);
        assert_eq!(metric(&first, "text_to_image_recall_at_1"), 0.5);
    }
}

#[test]
fn an_image_without_captions_is_never_found_but_competes() {
    let world =
        World::new(2).image(&[1.0, 0.0], &[], None).image(&[0.5, 0.0], &["it"], None).text("it", &[1.0, 0.0]);
    let result = world.evaluate(&retrieval(RetrievalCaptions::All), &[], 8, 1.0).expect("a result");
    assert_eq!(metric(&result, "image_to_text_recall_at_10"), 0.5);
    assert_eq!(metric(&result, "text_to_image_recall_at_1"), 0.0);
    assert_eq!(metric(&result, "text_to_image_recall_at_5"), 1.0);
}

/// Flickr30k as a table: a row a caption, five rows an image. Recall is that of images with five captions.
#[test]
fn rows_of_one_image_are_one_image_with_all_their_captions() {
    let mut state = 7u64;
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut vector = || [draw(), draw(), draw()];
    let (mut together, mut apart) = (World::new(3), World::new(3));
    let caption = |image: usize, number: usize| format!("caption {number} of {image}");
    let images: Vec<[f32; 3]> = (0..12).map(|_| vector()).collect();
    for (row, image) in images.iter().enumerate() {
        let captions: Vec<String> = (0..5).map(|number| caption(row, number)).collect();
        let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
        together = together.image(image, &captions, None);
    }
    // The rows of an image are far from each other, in other batches.
    for number in 0..5 {
        for (row, image) in images.iter().enumerate() {
            let (text, embedding) = (caption(row, number), vector());
            together = together.text(&text, &embedding);
            apart = apart.text(&text, &embedding).image(image, &[&text], None);
            apart.names.push(row as u64);
        }
    }
    for captions in [RetrievalCaptions::All, RetrievalCaptions::AtMost(2), RetrievalCaptions::First] {
        let expected = together.evaluate(&retrieval(captions), &[], 5, 1.0).expect("a result");
        let result = apart.evaluate(&retrieval(captions), &[], 7, 1.0).expect("a result");
        assert_eq!((result.n, &result.metrics), (12, &expected.metrics), "{captions:?}");
    }
    apart.names.clear();
    let result = apart.evaluate(&retrieval(RetrievalCaptions::All), &[], 7, 1.0).expect("a result");
    assert_eq!(result.n, 60, "samples of which nothing is known are images of their own");
}

proptest! {
    #[test]
    fn retrieval_equals_sorting(
        (images, texts, owners) in (1usize..90, 1usize..60).prop_flat_map(|(images, captions)| (
            whole_numbers(images, 19),
            whole_numbers(captions, 19),
            prop::collection::vec(0..images, captions),
        )),
        size in 1usize..40,
    ) {
        // Texts in the order in which the images bring them.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| owners[text]);
        let owners: Vec<usize> = order.iter().map(|&text| owners[text]).collect();
        let texts: Vec<Vec<f32>> = order.iter().map(|&text| texts[text].clone()).collect();
        let mut world = World::new(19);
        for (row, image) in images.iter().enumerate() {
            let captions: Vec<String> =
                (0..texts.len()).filter(|&text| owners[text] == row).map(|text| text.to_string()).collect();
            world.images.push((image.clone(), captions, None));
        }
        for (text, embedding) in texts.iter().enumerate() {
            world.texts.insert(text.to_string(), embedding.clone());
        }
        let result = world.evaluate(&retrieval(RetrievalCaptions::All), &[], size, 1.0).expect("a result");
        for k in [1, 5, 10] {
            let by_image = (0..images.len())
                .filter(|&i| ranking(&images[i], &texts).iter().take(k).any(|&text| owners[text] == i));
            let by_text = (0..texts.len())
                .filter(|&t| ranking(&texts[t], &images).iter().take(k).any(|&image| owners[t] == image));
            prop_assert_eq!(
                metric(&result, &format!("image_to_text_recall_at_{k}")),
                by_image.count() as f64 / images.len() as f64
            );
            prop_assert_eq!(
                metric(&result, &format!("text_to_image_recall_at_{k}")),
                by_text.count() as f64 / texts.len() as f64
            );
        }
    }
}
