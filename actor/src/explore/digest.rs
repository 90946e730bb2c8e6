//! Fingerprints: a fast hash, and one that is blind to which of several like parts is which.

use std::hash::{Hash, Hasher};

const SALT: u64 = 0x9E37_79B9_7F4A_7C15;
const FACTOR: u64 = 0xD6E8_FEB8_6659_FD93;

/// A hash of 64 bits by folded multiplication: fast, well mixed, the same in every process. No shield against malice.
#[derive(Clone, Debug)]
pub struct Mixer(u64);

impl Default for Mixer {
    fn default() -> Self {
        Self(SALT)
    }
}

impl Mixer {
    #[inline]
    fn fold(&mut self, word: u64) {
        let (low, high) = (self.0 ^ word).carrying_mul(FACTOR, 0);
        self.0 = (low ^ high).rotate_left(23).wrapping_add(SALT);
    }
}

impl Hasher for Mixer {
    #[inline]
    fn finish(&self) -> u64 {
        let mut last = self.clone();
        last.fold(FACTOR);
        last.fold(SALT);
        last.0
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
        self.fold(bytes.len() as u64);
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.fold(u64::from(value));
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.fold(u64::from(value));
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }

    #[inline]
    fn write_isize(&mut self, value: isize) {
        self.fold(value.cast_unsigned() as u64);
    }
}

/// The [`Mixer`]'s hash of `value`.
#[inline]
pub fn mix(value: &(impl Hash + ?Sized)) -> u64 {
    let mut mixer = Mixer::default();
    value.hash(&mut mixer);
    mixer.finish()
}

/// A fingerprint split into what is shared and what concerns one of several like parts (the nodes), so that two states
/// which differ only in the parts' names get the same fingerprint.
///
/// What is said of one part is a set of facts: the order in which they are told does not matter, so each MUST name what
/// it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest<const PARTS: usize> {
    /// What concerns no part, or all alike.
    pub shared: u64,
    /// What concerns each.
    pub parts: [u64; PARTS],
}

impl<const PARTS: usize> Default for Digest<PARTS> {
    fn default() -> Self {
        Self { shared: 0, parts: [0; PARTS] }
    }
}

impl<const PARTS: usize> Digest<PARTS> {
    /// Takes in a fact that names no part. Here the order does matter.
    #[inline]
    pub fn all(&mut self, fact: &(impl Hash + ?Sized)) {
        self.shared = mix(&(self.shared, mix(fact)));
    }

    /// Takes in a fact about one part.
    #[inline]
    pub fn of(&mut self, part: usize, fact: &(impl Hash + ?Sized)) {
        self.parts[part] = self.parts[part].wrapping_add(mix(fact));
    }

    /// Takes in the same fact about several parts.
    pub fn of_each(&mut self, parts: impl IntoIterator<Item = usize>, fact: &(impl Hash + ?Sized)) {
        for part in parts {
            self.of(part, fact);
        }
    }

    /// Takes in another digest whole, as the next fact of each part and of all.
    #[inline]
    pub fn join(&mut self, other: &Self) {
        self.all(&other.shared);
        for (mine, theirs) in self.parts.iter_mut().zip(other.parts) {
            *mine = mix(&(*mine, theirs));
        }
    }

    /// The fingerprint; the parts' names count only if they are not `alike`.
    pub fn finish(mut self, alike: bool) -> u64 {
        if alike {
            self.parts.sort_unstable();
        }
        mix(&(self.shared, self.parts))
    }
}
