//! Damaged files of weights end in an error or in networks, never in a panic.

use std::path::Path;

use pggan_model::import;

#[test]
fn damage_is_survived() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/import");
    let mut state = 0x1234_5678_9ABC_DEF1u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for name in ["zoo-stable.pth", "zoo-fading.pth"] {
        let good = std::fs::read(folder.join(name)).unwrap();
        let networks = import::read(&good).unwrap();
        assert_eq!(networks.g.config().widths, [12, 10, 7]);
        assert!(networks.g.config().position_bias && !networks.notes.is_empty());
        let mut refused = 0;
        for case in 0..400 {
            let mut bad = good.clone();
            // Most of it in the pickles, which come first.
            let region = if case % 4 == 0 { bad.len() } else { bad.len().min(6000) };
            for _ in 0..=next(6) {
                let at = next(region);
                bad[at] = next(256) as u8;
            }
            if case % 10 == 0 {
                bad.truncate(next(bad.len()));
            }
            refused += usize::from(import::read(&bad).is_err());
        }
        assert!(refused > 50, "{name}: {refused}");
    }
}
