//! Evaluated images as a person wants to see them: what was found, and whether it was right.

use super::evaluation::Subject;
use super::outline::title;
use super::page::{escape, push, section};
use crate::record::{Answer, Example, Examples};

/// The examples of the last stage that has them, of every subject.
pub(super) fn show(page: &mut String, all: &[Examples], titles: &[String]) {
    for (at, examples) in all.iter().enumerate() {
        let subject =
            |examples: &Examples| (examples.kind.clone(), examples.dataset.clone(), examples.task.clone());
        let superseded = all[at + 1..].iter().any(|later| subject(later) == subject(examples));
        if superseded || examples.examples.is_empty() {
            continue;
        }
        let retrieval = examples.examples.iter().any(|example| !example.images.is_empty());
        let heading = if retrieval { "Top retrievals" } else { "Largest mistakes" };
        let Examples { kind, dataset, task, .. } = examples;
        let subject = Subject { kind, dataset, task }.to_string();
        section(page, &format!("{heading}: {subject}"));
        let when = escape(&title(titles, examples.stage));
        if retrieval {
            push(
                page,
                format_args!(
                    "<p>Measured {when}. A caption; left its image, beside it the images nearest to the caption, \
                     below the captions nearest to the image. Framed and bold: the right one.</p>\n\
                     <div class=\"retrievals\">\n"
                ),
            );
            examples.examples.iter().for_each(|example| retrieved(page, example));
        } else {
            push(
                page,
                format_args!(
                    "<p>Measured {when}. The images whose nearest class leads the right one by most, with the nearest \
                     classes and their similarities.</p>\n<div class=\"mistakes\">\n"
                ),
            );
            examples.examples.iter().for_each(|example| mistaken(page, example));
        }
        page.push_str("</div>\n");
    }
}

fn retrieved(page: &mut String, example: &Example<String>) {
    let caption = escape(&example.caption);
    push(page, format_args!("<div class=\"retrieval\"><p>{caption}</p>\n"));
    image(page, &example.image, "An image that is asked about", false);
    page.push_str("<div class=\"found\">");
    for (rank, answer) in example.images.iter().enumerate() {
        let alt = format!("Found {}, similarity {:.2}", rank + 1, answer.similarity);
        image(page, &answer.what, &alt, answer.right);
    }
    page.push_str("</div>\n");
    texts(page, &example.texts);
    page.push_str("</div>\n");
}

fn mistaken(page: &mut String, example: &Example<String>) {
    page.push_str("<figure>");
    image(page, &example.image, "An image that was taken for something else", false);
    push(page, format_args!("<figcaption>{}</figcaption>\n", escape(&example.caption)));
    texts(page, &example.texts);
    page.push_str("</figure>\n");
}

fn texts(page: &mut String, answers: &[Answer<String>]) {
    page.push_str("<ol>");
    for answer in answers {
        let class = if answer.right { " class=\"right\"" } else { "" };
        push(
            page,
            format_args!("<li{class}>{} <span>{:.2}</span></li>", escape(&answer.what), answer.similarity),
        );
    }
    page.push_str("</ol>\n");
}

fn image(page: &mut String, data: &str, alt: &str, right: bool) {
    let class = if right { " class=\"right\"" } else { "" };
    push(page, format_args!("<img{class} alt=\"{}\" src=\"{}\">", escape(alt), escape(data)));
}
