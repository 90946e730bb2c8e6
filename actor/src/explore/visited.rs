//! A set of fingerprints: open addressing in one flat table, 11 to 22 bytes each.

const START: usize = 1 << 12;

/// See the module's header. Nothing is ever taken out.
#[derive(Debug)]
pub(super) struct Visited {
    /// A power of two of places; 0 is an empty one.
    places: Vec<u64>,
    count: usize,
}

impl Default for Visited {
    fn default() -> Self {
        Self { places: vec![0; START], count: 0 }
    }
}

impl Visited {
    /// False if it was there.
    pub(super) fn insert(&mut self, fingerprint: u64) -> bool {
        if self.count * 4 >= self.places.len() * 3 {
            let larger = vec![0; self.places.len() * 2];
            for old in std::mem::replace(&mut self.places, larger) {
                if old != 0 {
                    put(&mut self.places, old);
                }
            }
        }
        let new = put(&mut self.places, fingerprint.max(1));
        self.count += usize::from(new);
        new
    }
}

fn put(places: &mut [u64], fingerprint: u64) -> bool {
    let mask = places.len() - 1;
    let mut at = usize::try_from(fingerprint).unwrap_or(usize::MAX) & mask;
    loop {
        match places[at] {
            0 => {
                places[at] = fingerprint;
                return true;
            }
            there if there == fingerprint => return false,
            _ => at = (at + 1) & mask,
        }
    }
}
