//! `MurmurHash3` x64 128-bit, as Pravega's clients route events with it.

/// Seed of the clients' event router (the Java hash code of "EventRouter").
pub const EVENT_ROUTER_SEED: u64 = 1_741_865_571;

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

fn mix(mut k: u64) -> u64 {
    k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

fn lane(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |lane, byte| (lane << 8) | u64::from(*byte))
}

/// The first lane of `MurmurHash3_x64_128(bytes)`, both lanes seeded with `seed`.
pub fn murmur3(bytes: &[u8], seed: u64) -> u64 {
    let (mut h1, mut h2) = (seed, seed);
    let blocks = bytes.chunks_exact(16);
    let tail = blocks.remainder();
    let k1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let k2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    for block in blocks {
        h1 ^= k1(lane(&block[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= k2(lane(&block[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    if tail.len() > 8 {
        h2 ^= k2(lane(&tail[8..]));
    }
    if !tail.is_empty() {
        h1 ^= k1(lane(&tail[..tail.len().min(8)]));
    }
    h1 ^= bytes.len() as u64;
    h2 ^= bytes.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = mix(h1);
    h2 = mix(h2);
    h1.wrapping_add(h2)
}

/// Where `routing_key` falls in `[0, 1)`, as the Java client computes it (UTF-16, little-endian).
pub fn route(routing_key: &str) -> f64 {
    let bytes: Vec<u8> = routing_key.encode_utf16().flat_map(u16::to_le_bytes).collect();
    unit(murmur3(&bytes, EVENT_ROUTER_SEED))
}

/// The top 52 bits of `hash` as a fraction in `[0, 1)`.
pub fn unit(hash: u64) -> f64 {
    f64::from_bits(0x3FF0_0000_0000_0000 | (hash >> 12)) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routing_keys_fall_where_the_java_client_puts_them() {
        for (key, at) in [
            ("hello", 0.658_716_230_571_337),
            ("", 0.241_178_427_916_235_23),
            ("a", 0.943_391_275_381_688_4),
            ("key1", 0.692_765_314_482_525_7),
            ("42", 0.604_917_608_904_286_7),
            ("routing-key-1", 0.835_356_048_488_517_4),
        ] {
            assert!((route(key) - at).abs() < 1e-15, "{key}: {}", route(key));
        }
    }
}
