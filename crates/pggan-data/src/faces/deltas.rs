//! The deltas of CelebA-HQ: for each of its images, what to add to the aligned one, encrypted with the file that it
//! was made of. Who has CelebA can read them, nobody else.
//!
//! ```text
//! image_list.txt      idx orig_idx orig_file proc_md5 final_md5: a line of titles, then one for each image
//! deltas00000.zip     delta00000.dat to delta00999.dat, and so on
//! delta00000.dat      Fernet(PBKDF2-HMAC-SHA256(the JPEG file, salt: its name, 100000 rounds), bzip2(u8[3, 1024, 1024]))
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use aes::Aes128;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bzip2::read::BzDecoder;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt as _, KeyIvInit as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha2::Sha256;
use zip::ZipArchive;

use crate::error::Context;
use crate::{Error, Result};

/// Where the names and checksums are.
pub(crate) const LIST: &str = "image_list.txt";
/// What a list needs at least: 30000 lines of 110 bytes.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// A delta that unpacks to its 3 MiB is no larger.
const MAX_DELTA_BYTES: u64 = 16 << 20;
const ROUNDS: u32 = 100_000;

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) index: u64,
    /// The file in `img_celeba`.
    pub(crate) file: String,
    /// MD5 of the aligned image, `[3, 1024, 1024]`.
    pub(crate) aligned: String,
    /// MD5 of that with the delta.
    pub(crate) finished: String,
}

/// Reads `image_list.txt` of a folder.
pub(crate) fn list(dir: &Path) -> Result<Vec<Listed>> {
    let path = dir.join(LIST);
    let mut bytes = Vec::new();
    let file = File::open(&path).context("read", &path)?;
    file.take(MAX_LIST_BYTES).read_to_end(&mut bytes).context("read", &path)?;
    parse_list(&String::from_utf8_lossy(&bytes))
        .map_err(|reason| Error::Deltas { path: path.clone(), reason })
}

fn parse_list(text: &str) -> Result<Vec<Listed>, String> {
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let (_, titles) = lines.next().ok_or("it is empty")?;
    let titles: Vec<&str> = titles.split_whitespace().collect();
    let column = |title: &str| {
        let place = titles.iter().position(|found| *found == title);
        place.ok_or_else(|| format!("line 1: there is no column {title}"))
    };
    let columns = [column("idx")?, column("orig_file")?, column("proc_md5")?, column("final_md5")?];
    let mut files = std::collections::BTreeSet::new();
    let listed: Result<Vec<Listed>, String> = lines
        .map(|(number, line)| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let wrong = || format!("line {number}: not {} fields as in line 1", titles.len());
            if fields.len() != titles.len() {
                return Err(wrong());
            }
            let [index, file, aligned, finished] = columns.map(|column| fields[column]);
            let is_md5 =
                |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_md5(aligned) || !is_md5(finished) {
                return Err(format!("line {number}: not an MD5"));
            }
            // Names lead to files.
            if file.contains(['/', '\\']) || file.starts_with('.') {
                return Err(format!("line {number}: {file:?} is no name of a file"));
            }
            if !files.insert(file) {
                return Err(format!("line {number}: {file} is there twice"));
            }
            Ok(Listed {
                index: index.parse().map_err(|_| format!("line {number}: idx is no number"))?,
                file: file.into(),
                aligned: aligned.to_ascii_lowercase(),
                finished: finished.to_ascii_lowercase(),
            })
        })
        .collect();
    listed.and_then(|listed| if listed.is_empty() { Err("no images".into()) } else { Ok(listed) })
}

type Archive = ZipArchive<BufReader<File>>;

/// Where the delta of each image is.
#[derive(Debug)]
pub(crate) struct Deltas {
    archives: Vec<(PathBuf, Archive)>,
    /// By number: the archive and the place in it.
    places: BTreeMap<u64, (usize, usize)>,
}

impl Deltas {
    /// Opens all `delta*.zip` of a folder.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        for item in std::fs::read_dir(dir).context("list", dir)? {
            let path = item.context("list", dir)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("delta") && name.ends_with(".zip") {
                paths.push(path);
            }
        }
        paths.sort_unstable();
        let (mut archives, mut places) = (Vec::new(), BTreeMap::new());
        for path in paths {
            let wrong = |reason: String| Error::Deltas { path: path.clone(), reason };
            let file = File::open(&path).context("open", &path)?;
            let archive = ZipArchive::new(BufReader::new(file))
                .map_err(|error| wrong(format!("not a readable zip archive ({error})")))?;
            for place in 0..archive.len() {
                let entry =
                    archive.by_index_data(place).map_err(|error| wrong(error.to_string()))?;
                let name = entry.name().map(std::borrow::Cow::into_owned).unwrap_or_default();
                let last = name.rsplit('/').next().unwrap_or_default();
                let number = last.strip_prefix("delta").and_then(|n| n.strip_suffix(".dat"));
                if let Some(number) = number.and_then(|number| number.parse().ok()) {
                    places.insert(number, (archives.len(), place));
                }
            }
            archives.push((path, archive));
        }
        if places.is_empty() {
            let reason = "no delta*.zip with deltas here".into();
            return Err(Error::Deltas { path: dir.to_owned(), reason });
        }
        Ok(Self { archives, places })
    }

    /// Adds the delta to an aligned image, `[3, 1024, 1024]`, that was made of the file `original`.
    ///
    /// The error is the reason for which the image cannot be finished.
    pub(crate) fn add(
        &self,
        listed: &Listed,
        original: &[u8],
        image: &mut [u8],
    ) -> Result<(), String> {
        let found = md5(image);
        if found != listed.aligned {
            return Err(format!(
                "aligned, it has the MD5 {found}, and {LIST} says {}: it is not the file that the delta was made for, \
                 or was decoded differently",
                listed.aligned
            ));
        }
        let token = self.read(listed.index)?;
        let delta = decrypt(&token, original, &listed.file)?;
        let mut unpacked = Vec::with_capacity(image.len() + 1);
        let unpacking = BzDecoder::new(&delta[..]).take(image.len() as u64 + 1);
        { unpacking }
            .read_to_end(&mut unpacked)
            .map_err(|error| format!("its delta: not bzip2 ({error})"))?;
        if unpacked.len() != image.len() {
            let (found, wanted) = (unpacked.len(), image.len());
            return Err(format!("its delta: {found} bytes or more, and not {wanted}"));
        }
        for (value, delta) in image.iter_mut().zip(unpacked) {
            *value = value.wrapping_add(delta);
        }
        let found = md5(image);
        if found != listed.finished {
            return Err(format!(
                "finished, it has the MD5 {found}, and {LIST} says {}",
                listed.finished
            ));
        }
        Ok(())
    }

    fn read(&self, index: u64) -> Result<Vec<u8>, String> {
        let (archive, place) =
            self.places.get(&index).ok_or_else(|| format!("there is no delta{index:05}.dat"))?;
        let (path, archive) = &self.archives[*archive];
        let in_archive = |error: String| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            format!("delta{index:05}.dat in {name}: {error}")
        };
        // Each thread has its own place in the file.
        let mut input =
            BufReader::new(File::open(path).map_err(|error| in_archive(error.to_string()))?);
        let entry = archive.by_index_data(*place).map_err(|error| in_archive(error.to_string()))?;
        let entry = entry
            .with_reader(&mut input, zip::read::ZipReadOptions::new())
            .map_err(|error| in_archive(error.to_string()))?;
        let mut bytes = Vec::new();
        entry
            .take(MAX_DELTA_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|error| in_archive(error.to_string()))?;
        Ok(bytes)
    }
}

/// The MD5 of bytes, in hexadecimal digits.
pub(crate) fn md5(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Md5::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// What a token holds that was encrypted with a password.
fn decrypt(token: &[u8], password: &[u8], salt: &str) -> Result<Vec<u8>, String> {
    let mut key = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password, salt.as_bytes(), ROUNDS, &mut key);
    open_token(token, &key).map_err(|reason| format!("its delta: {reason}"))
}

/// Fernet, see <https://github.com/fernet/spec>: in base64, a version, the time, AES-128-CBC's initial vector and blocks,
/// and HMAC-SHA256 over all that.
fn open_token(token: &[u8], key: &[u8; 32]) -> Result<Vec<u8>, String> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let token = GeneralPurpose::new(&URL_SAFE, config)
        .decode(token.trim_ascii())
        .map_err(|error| format!("not base64 ({error})"))?;
    let (message, tag) = token.split_last_chunk::<32>().ok_or("cut off")?;
    if message.len() < 25 || message[0] != 0x80 {
        return Err("not a Fernet token".into());
    }
    let (signing, encryption) = key.split_at(16);
    let mut mac = Hmac::<Sha256>::new_from_slice(signing).map_err(|error| error.to_string())?;
    mac.update(message);
    mac.verify_slice(tag).map_err(|_| "damaged, or encrypted with another file than this one")?;
    cbc::Decryptor::<Aes128>::new_from_slices(encryption, &message[9..25])
        .map_err(|error| error.to_string())?
        .decrypt_padded_vec::<Pkcs7>(&message[25..])
        .map_err(|_| "not whole blocks".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "idx orig_idx orig_file proc_md5 final_md5
0 6 000007.jpg 00000000000000000000000000000001 0000000000000000000000000000000A

1 2 000003.jpg 00000000000000000000000000000003 00000000000000000000000000000004
";

    #[test]
    fn lists() {
        let listed = parse_list(GOOD).unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!((listed[0].index, &listed[1].file[..]), (0, "000003.jpg"));
        assert!(listed[0].finished.ends_with('a'), "as our own digits are written");
        for (from, to, words) in [
            (GOOD, "", "it is empty"),
            ("final_md5", "md5", "line 1: there is no column final_md5"),
            ("000003.jpg", "", "line 4: not 5 fields"),
            ("000003.jpg", "../3.jpg", "line 4: \"../3.jpg\" is no name"),
            ("000003.jpg", "000007.jpg", "line 4: 000007.jpg is there twice"),
            ("1 2", "x 2", "line 4: idx is no number"),
            ("000004", "00004", "line 4: not an MD5"),
            ("000004", "00000g", "line 4: not an MD5"),
        ] {
            let error = parse_list(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(words), "{to}: {error}");
        }
        assert!(parse_list(GOOD.lines().next().unwrap()).is_err());
    }

    /// The example in Fernet's specification.
    #[test]
    fn tokens() {
        let key = b"\x73\x0f\xf4\xc7\xaf\x3d\x46\x92\x3e\x8e\xd4\x51\xee\x81\x3c\x87\
                    \xf7\x90\xb0\xa2\x26\xbc\x96\xa9\x2d\xe4\x9b\x5e\x9c\x05\xe1\xee";
        let token: &[u8] = b"gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
        assert_eq!(open_token(token, key).unwrap(), b"hello");
        assert_eq!(open_token(&[token, b"\n"].concat(), key).unwrap(), b"hello");
        assert!(open_token(token, &[7; 32]).unwrap_err().contains("another file"));
        for (at, words) in [(0, "not a Fernet token"), (20, "damaged"), (60, "damaged"), (99, "")] {
            let mut damaged = token.to_vec();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            let error = open_token(&damaged, key).unwrap_err();
            assert!(error.contains(words), "{at}: {error}");
        }
        for length in 0..token.len() - 2 {
            assert!(open_token(&token[..length], key).is_err(), "{length}");
        }
    }
}
