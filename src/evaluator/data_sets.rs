//! Data sets that papers report, by the names that CLIP_benchmark gives them: the measure of each, and where it is to be had.

/// The measure by which the paper of CLIP (arXiv 2103.00020, table 9) reports a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The share of images that are right.
    Accuracy,
    /// The mean over classes of that share.
    MeanPerClass,
    /// The mean over classes of average precision at eleven recalls.
    ElevenPointMap,
    /// The area under the curve of true over false positives.
    RocAuc,
    /// The mean of the accuracies among the best 1 and the best 5.
    MeanOfTop1And5,
    /// Recall at 1, both ways.
    Recall,
}

/// A data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSet {
    /// As CLIP_benchmark calls it, without its collection.
    pub name: &'static str,
    /// As papers call it.
    pub title: &'static str,
    /// The measure that papers report.
    pub measure: Measure,
    /// Its folder among those of the CLIP_benchmark project on the Hugging Face hub; none where it is not there.
    folder: Option<&'static str>,
    /// Table that it is in.
    pub table: Table,
}

/// Table of a paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The 27 sets of CLIP's table 9.
    Clip,
    /// ImageNet's other test sets.
    Robustness,
    /// Captions.
    Retrieval,
}

const fn of(
    name: &'static str,
    title: &'static str,
    measure: Measure,
    folder: Option<&'static str>,
    table: Table,
) -> DataSet {
    DataSet { name, title, measure, folder, table }
}

use Measure::{Accuracy, ElevenPointMap, MeanOfTop1And5, MeanPerClass, Recall, RocAuc};
use Table::{Clip, Retrieval, Robustness};

/// All of them, in the order of the papers' tables.
pub const DATA_SETS: &[DataSet] = &[
    of("food101", "Food-101", Accuracy, Some("wds_food101"), Clip),
    of("cifar10", "CIFAR-10", Accuracy, Some("wds_vtab-cifar10"), Clip),
    of("cifar100", "CIFAR-100", Accuracy, Some("wds_vtab-cifar100"), Clip),
    of("birdsnap", "Birdsnap", Accuracy, None, Clip),
    of("sun397", "SUN397", Accuracy, Some("wds_sun397"), Clip),
    of("cars", "Stanford Cars", Accuracy, Some("wds_cars"), Clip),
    of("fgvc_aircraft", "FGVC Aircraft", MeanPerClass, Some("wds_fgvc_aircraft"), Clip),
    of("voc2007_multilabel", "Pascal VOC 2007", ElevenPointMap, Some("wds_voc2007_multilabel"), Clip),
    of("dtd", "Describable Textures", Accuracy, Some("wds_vtab-dtd"), Clip),
    of("pets", "Oxford-IIIT Pets", MeanPerClass, Some("wds_vtab-pets"), Clip),
    of("caltech101", "Caltech-101", MeanPerClass, Some("wds_vtab-caltech101"), Clip),
    of("flowers", "Oxford Flowers 102", MeanPerClass, Some("wds_vtab-flowers"), Clip),
    of("mnist", "MNIST", Accuracy, Some("wds_mnist"), Clip),
    of("fer2013", "FER 2013", Accuracy, Some("wds_fer2013"), Clip),
    of("stl10", "STL-10", Accuracy, Some("wds_stl10"), Clip),
    of("eurosat", "EuroSAT", Accuracy, Some("wds_vtab-eurosat"), Clip),
    of("resisc45", "RESISC45", Accuracy, Some("wds_vtab-resisc45"), Clip),
    of("gtsrb", "GTSRB", Accuracy, Some("wds_gtsrb"), Clip),
    of(
        "kitti_closest_vehicle_distance",
        "KITTI Distance",
        Accuracy,
        Some("wds_vtab-kitti_closest_vehicle_distance"),
        Clip,
    ),
    of("country211", "Country211", Accuracy, Some("wds_country211"), Clip),
    of("pcam", "PatchCamelyon", Accuracy, Some("wds_vtab-pcam"), Clip),
    of("ucf101", "UCF101", Accuracy, None, Clip),
    of("kinetics700", "Kinetics 700", MeanOfTop1And5, None, Clip),
    of("clevr_count_all", "CLEVR Counts", Accuracy, Some("wds_vtab-clevr_count_all"), Clip),
    of("hateful_memes", "Hateful Memes", RocAuc, None, Clip),
    of("renderedsst2", "Rendered SST-2", Accuracy, Some("wds_renderedsst2"), Clip),
    of("imagenet1k", "ImageNet", Accuracy, Some("wds_imagenet1k"), Clip),
    of("imagenetv2", "ImageNet-V2", Accuracy, Some("wds_imagenetv2"), Robustness),
    of("imagenet_sketch", "ImageNet-Sketch", Accuracy, Some("wds_imagenet_sketch"), Robustness),
    of("imagenet-a", "ImageNet-A", Accuracy, Some("wds_imagenet-a"), Robustness),
    of("imagenet-r", "ImageNet-R", Accuracy, Some("wds_imagenet-r"), Robustness),
    of("objectnet", "ObjectNet", Accuracy, Some("wds_objectnet"), Robustness),
    of("mscoco_captions", "COCO captions", Recall, Some("wds_mscoco_captions"), Retrieval),
    of("flickr30k", "Flickr30k", Recall, Some("wds_flickr30k"), Retrieval),
    of("flickr8k", "Flickr8k", Recall, Some("wds_flickr8k"), Retrieval),
];

const HUB: &str = "https://huggingface.co/datasets/clip-benchmark";

impl DataSet {
    /// The data set of this name: that of CLIP_benchmark, or of a folder that its tools write (`wds_vtab-pets_test`).
    pub fn named(name: &str) -> Option<&'static DataSet> {
        let name = plain_name(name);
        DATA_SETS.iter().find(|set| set.name == name)
    }

    /// Names of the folder that it may have: as on the hub, and as CLIP_benchmark's exporter is usually told.
    pub fn folders(&self) -> Vec<String> {
        let hub = self.folder.map(str::to_owned);
        let own = [self.name.to_owned(), format!("wds_{}", self.name), format!("vtab/{}", self.name)];
        hub.into_iter().chain(own.into_iter().filter(|name| Some(name.as_str()) != self.folder)).collect()
    }

    /// Where it is to be had, as a sentence.
    pub fn how_to_get(&self) -> String {
        match self.folder {
            Some(folder) => format!("git clone {HUB}/{folder}, or evaluate {HUB}/{folder}/tree/main"),
            None => "from its authors; lay the test images out as one folder a class, or as CLIP_benchmark's shards".into(),
        }
    }
}

/// The name of a data set without what exporters put around it.
pub fn plain_name(name: &str) -> String {
    let name = name.trim_end_matches('/').to_ascii_lowercase();
    let name = name.strip_prefix("wds_").or(name.strip_prefix("wds-")).unwrap_or(&name);
    let name = ["vtab-", "vtab_", "vtab/"].iter().find_map(|start| name.strip_prefix(start)).unwrap_or(name);
    name.strip_suffix("_test").unwrap_or(name).to_owned()
}

/// The data set whose templates another one has in CLIP_benchmark's file: ImageNet's other test sets have those of ImageNet.
pub fn templates_of(name: &str) -> &str {
    match DataSet::named(name) {
        Some(set) if set.table == Robustness => "imagenet1k",
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_known_by_the_names_of_their_folders() {
        let metric = |name: &str| DataSet::named(name).map(|set| set.measure);
        assert_eq!(metric("wds_vtab-pets_test"), Some(MeanPerClass));
        assert_eq!(metric("voc2007_multilabel"), Some(ElevenPointMap));
        assert_eq!(metric("wds_vtab-pcam"), Some(Accuracy));
        assert_eq!(metric("hateful_memes"), Some(RocAuc));
        assert_eq!(metric("wds_imagenet-a"), Some(Accuracy));
        assert_eq!(metric("my_birds"), None);
        assert_eq!(templates_of("imagenet_sketch"), "imagenet1k");
        assert_eq!(DATA_SETS.iter().filter(|set| set.table == Clip).count(), 27);
        for set in DATA_SETS {
            for folder in set.folders() {
                assert_eq!(DataSet::named(&folder), Some(set), "{folder}");
            }
        }
    }
}
