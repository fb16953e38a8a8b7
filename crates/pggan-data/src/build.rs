//! The second pass over a source: decode, resize, halve, encode, write.

use crate::codec::Codec;
use crate::decode::{Decoder, Form};
use crate::faces::{Aligner, Faces};
use crate::pyramid::{Pyramid, level_bytes, levels, pyramid_bytes};
use crate::source::{MAX_FILE_BYTES, Source};
use crate::store::manifest::{Bad, Layout, Level, Recipe};
use crate::store::{Journal, Kind, LevelWriter, MappedShard, Staging, WriteBehind};
use crate::survey::Survey;
use crate::transform::Transform;
use crate::{MIN_LEVEL, PrepareOptions, Progress, Result, parallel};

/// What is needed to make all shards.
pub(crate) struct Build<'a> {
    pub(crate) options: &'a PrepareOptions,
    pub(crate) source: &'a Source,
    pub(crate) faces: Option<&'a Faces>,
    pub(crate) survey: Survey,
    pub(crate) recipe: &'a Recipe,
    /// The top level.
    pub(crate) top: Kind,
    pub(crate) staging: &'a Staging,
}

/// What was made.
pub(crate) struct Built {
    /// Images that were taken over from an earlier run.
    pub(crate) restored: u64,
    /// The entries that became images.
    pub(crate) kept: Vec<usize>,
    pub(crate) bad: Vec<Bad>,
    pub(crate) enlarged: u64,
    /// From the lowest up.
    pub(crate) levels: Vec<Level>,
}

/// An image on its way from a thread to the writer.
#[derive(Clone)]
struct Slot {
    outcome: Result<(), String>,
    pyramid: Vec<u8>,
    /// The files of levels that are compressed, from the top down.
    files: Vec<Vec<u8>>,
}

impl Build<'_> {
    pub(crate) fn run(self, mut progress: impl FnMut(Progress)) -> Result<Built> {
        let Self { options, source, faces, survey, recipe, top, staging } = self;
        let Kind { channels, level: max_level, .. } = top;
        let restored = staging.restore(top)?;
        let next_entry = restored.last().map_or(0, |(journal, _)| journal.next_entry);
        let fresh = &survey.good[survey.good.partition_point(|&(entry, _)| entry < next_entry)..];
        let (journals, maps): (Vec<Journal>, Vec<MappedShard>) = restored.into_iter().unzip();
        let tops: Vec<(&MappedShard, usize)> =
            maps.iter().flat_map(|map| (0..map.len()).map(move |place| (map, place))).collect();

        let mut shards = Vec::new();
        let mut kept = Vec::new();
        let mut bad = Vec::new();
        let mut enlarged = 0;
        for journal in journals {
            shards.push(journal.shard);
            kept.extend(journal.kept);
            bad.extend(journal.bad);
            enlarged += journal.enlarged;
        }
        // What the shard that is being filled adds to these begins here.
        let (mut noted_kept, mut noted_bad, mut noted_enlarged) = (kept.len(), bad.len(), enlarged);
        let total = tops.len() + fresh.len();
        let behind = WriteBehind::start();
        let mut writers: Vec<LevelWriter<'_>> = (MIN_LEVEL..=max_level)
            .rev()
            .map(|level| {
                let shards =
                    if level == max_level { std::mem::take(&mut shards) } else { Vec::new() };
                let kind = recipe.kind(level);
                let bytes = options.shard_bytes;
                LevelWriter::new(staging.dir(), &behind, kind, bytes, shards, total as u64)
            })
            .collect();

        let worker = || make_worker(options, source, faces, top, &tops, fresh);
        let is_compressed = |level: &u32| recipe.kind(*level).layout != Layout::Raw;
        let slot = Slot {
            outcome: Ok(()),
            pyramid: vec![0; pyramid_bytes(channels, max_level)],
            files: vec![Vec::new(); (MIN_LEVEL..=max_level).filter(is_compressed).count()],
        };
        let slots = vec![slot; 2 * options.threads + 2];
        parallel::ordered(options.threads, total, slots, worker, |index, slot| {
            let done = index as u64 + 1;
            progress(Progress::Images { done, total: total as u64, restored: tops.len() as u64 });
            let (entry, short) =
                if index < tops.len() { (0, u32::MAX) } else { fresh[index - tops.len()] };
            if let Err(reason) = std::mem::replace(&mut slot.outcome, Ok(())) {
                bad.push(Bad::found(source, entry, reason, options.strict)?);
                return Ok(());
            }
            // Levels that are compressed are the topmost.
            let files = slot.files.iter().map(Vec::as_slice);
            let stored = files.chain(
                levels(channels, max_level, &slot.pyramid).skip(slot.files.len()).map(|(_, p)| p),
            );
            for (place, (writer, stored)) in writers.iter_mut().zip(stored).enumerate() {
                if place > 0 {
                    writer.push(stored)?;
                } else if index >= tops.len() {
                    kept.push(entry);
                    enlarged += u64::from(short < 1 << max_level);
                    if let Some(shard) = writer.push(stored)? {
                        let number = (shard.first / shard.count) as usize;
                        let journal = Journal {
                            shard: shard.clone(),
                            next_entry: entry + 1,
                            kept: kept[noted_kept..].to_vec(),
                            bad: bad[noted_bad..].to_vec(),
                            enlarged: enlarged - noted_enlarged,
                        };
                        staging.note(number, &journal)?;
                        (noted_kept, noted_bad, noted_enlarged) = (kept.len(), bad.len(), enlarged);
                    }
                }
            }
            Ok(())
        })?;
        for writer in &mut writers {
            writer.complete()?;
        }
        bad.extend(survey.bad);
        bad.sort_by_key(|bad| bad.entry);
        let levels = writers.into_iter().rev().map(LevelWriter::into_level).collect();
        behind.finish()?;
        Ok(Built { restored: tops.len() as u64, kept, bad, enlarged, levels })
    }
}

/// Makes the pyramids of one thread: of the restored images first, of the fresh ones behind them.
fn make_worker<'a>(
    options: &PrepareOptions,
    source: &'a Source,
    faces: Option<&'a Faces>,
    top: Kind,
    tops: &'a [(&'a MappedShard, usize)],
    fresh: &'a [(usize, u32)],
) -> Result<impl FnMut(usize, &mut Slot) + use<'a>> {
    let mut reader = source.reader()?;
    let mut encoded = Vec::new();
    let Kind { channels, level: max_level, .. } = top;
    let mut squares = Squares::new(options, faces, 1 << max_level);
    let mut levels = Levels {
        top,
        quality: options.compression.map_or(0, |compression| compression.quality),
        pyramid: Pyramid::new(channels),
        codec: Codec::new(channels),
    };
    Ok(move |index: usize, slot: &mut Slot| {
        let pixels = &mut slot.pyramid[..level_bytes(channels, max_level)];
        let is_fresh = index >= tops.len();
        slot.outcome = if let Some((shard, place)) = tops.get(index) {
            shard.image(*place).map(|restored| pixels.copy_from_slice(&restored))
        } else {
            let (entry, _) = fresh[index - tops.len()];
            reader
                .read(entry, MAX_FILE_BYTES, &mut encoded)
                .and_then(|form| squares.fill(entry, form, &encoded, pixels))
        };
        if slot.outcome.is_ok() {
            slot.outcome = levels.fill(slot, is_fresh);
        }
    })
}

/// Makes the levels below the top one, and the files of those that are compressed.
struct Levels {
    top: Kind,
    quality: u8,
    pyramid: Pyramid,
    codec: Codec,
}

impl Levels {
    /// Fills `slot`, whose top level is there. The file of a top level that is not fresh is not needed.
    fn fill(&mut self, slot: &mut Slot, is_fresh: bool) -> Result<(), String> {
        let Self { top: Kind { channels, level: max_level, layout }, quality, .. } = *self;
        let encode = |codec: &mut Codec, level: u32, planes: &[u8], file: &mut Vec<u8>| {
            codec.encode(layout, quality, 1 << level, planes, file).map_err(|e| e.to_string())
        };
        if is_fresh && let Some(file) = slot.files.first_mut() {
            let planes = &mut slot.pyramid[..level_bytes(channels, max_level)];
            encode(&mut self.codec, max_level, planes, file)?;
            if layout == Layout::Jpeg {
                // Whoever goes on from this file later must find the same pixels.
                self.codec.decode(file, 1 << max_level, planes)?;
            }
        }
        self.pyramid.fill(max_level, &mut slot.pyramid);
        let below = levels(channels, max_level, &slot.pyramid).zip(&mut slot.files).skip(1);
        for ((level, planes), file) in below {
            encode(&mut self.codec, level, planes, file)?;
        }
        Ok(())
    }
}

/// Bytes of images to squares.
enum Squares<'a> {
    Plain { decoder: Decoder, transform: Transform },
    Faces(Aligner<'a>),
}

impl<'a> Squares<'a> {
    fn new(options: &PrepareOptions, faces: Option<&'a Faces>, side: u32) -> Self {
        let decoder = Decoder::new(options.channels, options.background);
        if let Some(faces) = faces {
            return Self::Faces(faces.aligner(side, decoder));
        }
        let PrepareOptions { crop, filter, background, window, .. } = *options;
        let transform = Transform::new(side, crop, filter, background).of_window(window);
        Self::Plain { decoder, transform }
    }

    fn fill(
        &mut self,
        entry: usize,
        form: Form,
        bytes: &[u8],
        top: &mut [u8],
    ) -> Result<(), String> {
        match self {
            Self::Plain { decoder, transform } => {
                decoder.decode(form, bytes, |picture| transform.apply(picture, top)).flatten()
            }
            Self::Faces(aligner) => aligner.apply(entry, form, bytes, top),
        }
    }
}
