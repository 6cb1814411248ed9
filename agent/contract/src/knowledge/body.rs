//! Statistics of bodies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    kept::Bounds,
    schema::{ObjectStats, SchemaStats, grow},
    token,
    value::StoredText,
};
use crate::observation::{BodyShape, Content};

/// Which of the ways of structure a body of one media type takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MediaStats {
    pub count: u64,
    pub truncated: u64,
    /// Bodies that were JSON, JSON lines, forms, multipart; the rest has no structure.
    pub json: u64,
    pub json_lines: u64,
    pub form: u64,
    pub multipart: u64,
    pub binary: u64,
    pub malformed: u64,
    pub schema: SchemaStats,
    /// Fields of forms and multipart that carry files.
    pub files: BTreeMap<u64, u64>,
}

/// Media types that are told apart, per body.
const MAX_MEDIA: usize = 8;
/// File fields that are told apart, per body.
const MAX_FILES: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BodyStats {
    pub count: u64,
    pub empty: u64,
    /// By media type; bodies that declared none are under `None`. The least names are kept.
    pub media: BTreeMap<Option<StoredText>, MediaStats>,
}

impl BodyStats {
    pub fn add(&mut self, body: &BodyShape, bounds: Bounds, grown: &mut usize) {
        self.count += 1;
        if matches!(body.content, Content::Empty) && body.length == 0 {
            self.empty += 1;
            return;
        }
        let media_type = StoredText::of(&body.media_type);
        let media = self.media.entry(media_type).or_insert_with(|| {
            *grown += size_of::<MediaStats>() * 11;
            MediaStats::default()
        });
        media.add(body, bounds, grown);
        self.trim();
    }

    fn trim(&mut self) {
        while self.media.len() > MAX_MEDIA {
            self.media.pop_last();
        }
    }

    pub fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.count += other.count;
        self.empty += other.empty;
        for (name, media) in &other.media {
            self.media.entry(name.clone()).or_default().combine(media, bounds);
        }
        self.trim();
    }

    pub fn coarsen(&mut self, bounds: Bounds) {
        self.media.values_mut().for_each(|m| m.schema.coarsen(bounds));
    }

    pub fn bytes(&self) -> usize {
        self.media
            .values()
            .map(|m| size_of::<MediaStats>() + 64 + m.schema.bytes() + m.files.len() * 32)
            .sum()
    }
}

impl MediaStats {
    fn add(&mut self, body: &BodyShape, bounds: Bounds, grown: &mut usize) {
        self.count += 1;
        self.truncated += u64::from(!body.is_whole);
        match &body.content {
            Content::Json(node) => {
                self.json += 1;
                self.schema.add(node, bounds, grown);
            }
            Content::JsonLines(nodes) => {
                self.json_lines += 1;
                nodes.iter().for_each(|n| self.schema.add(n, bounds, grown));
            }
            Content::Form { fields, is_whole } => {
                self.form += 1;
                let object = self.form_object(*is_whole, grown);
                for (at, (name, value)) in fields.iter().enumerate() {
                    let is_first = !fields
                        .get(..at)
                        .unwrap_or_default()
                        .iter()
                        .any(|(n, _)| n.hash == name.hash);
                    object.add_member(name, *is_whole && is_first, bounds, grown, |s, g| {
                        s.add_string(value, g);
                    });
                }
            }
            Content::Multipart { parts, is_whole } => {
                self.multipart += 1;
                for part in parts.iter().filter(|p| p.is_file) {
                    *self.files.entry(token::key(&part.name, None).hash).or_default() += 1;
                }
                while self.files.len() > MAX_FILES {
                    self.files.pop_last();
                }
                let object = self.form_object(*is_whole, grown);
                for (at, part) in parts.iter().enumerate() {
                    let is_first = !parts
                        .get(..at)
                        .unwrap_or_default()
                        .iter()
                        .any(|p| p.name.hash == part.name.hash);
                    let is_closed = *is_whole && is_first;
                    object.add_member(&part.name, is_closed, bounds, grown, |s, g| {
                        match &part.value {
                            Some(value) => s.add_string(value, g),
                            None => s.count += 1,
                        }
                    });
                }
            }
            Content::Binary => self.binary += 1,
            Content::Malformed => self.malformed += 1,
            Content::Empty | Content::Xml | Content::Text | Content::EventStream => {}
        }
    }

    fn form_object(&mut self, is_whole: bool, grown: &mut usize) -> &mut ObjectStats {
        self.schema.count += 1;
        let object = self.schema.objects.get_or_insert_with(grow(grown));
        object.count += 1;
        object.closed += u64::from(is_whole);
        object
    }

    pub fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.count += other.count;
        self.truncated += other.truncated;
        self.json += other.json;
        self.json_lines += other.json_lines;
        self.form += other.form;
        self.multipart += other.multipart;
        self.binary += other.binary;
        self.malformed += other.malformed;
        self.schema.combine(&other.schema, bounds);
        for (file, count) in &other.files {
            *self.files.entry(*file).or_default() += count;
        }
        while self.files.len() > MAX_FILES {
            self.files.pop_last();
        }
    }
}
