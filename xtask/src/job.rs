//! What can be launched: the table behind `cargo xtask`, and the one look at the arguments that it needs.

use std::ffi::{OsStr, OsString};

/// One command of `cargo xtask`.
#[derive(Debug)]
pub(crate) struct Job {
    /// The heading it stands under in the help.
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) program: Program,
}

/// What a job launches.
#[derive(Debug)]
pub(crate) enum Program {
    /// A command of one of our binaries, built first where it is not up to date.
    Binary { package: &'static str, command: &'static str, on_device: OnDevice },
    /// A script, by its path from the workspace's root.
    Script(&'static str),
}

/// Whether a binary computes on the device that `--device` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDevice {
    Yes,
    No,
}

/// Every job, in the order of the help.
pub(crate) const JOBS: &[Job] = &[
    Job {
        group: "Data",
        name: "prepare-dataset",
        about: "Turn pictures into a data set to train on",
        program: Program::Binary {
            package: "pggan-data",
            command: "prepare",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Data",
        name: "inspect-dataset",
        about: "Show what a data set holds",
        program: Program::Binary {
            package: "pggan-data",
            command: "inspect",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Data",
        name: "verify-dataset",
        about: "Check every byte of a data set",
        program: Program::Binary {
            package: "pggan-data",
            command: "verify",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Data",
        name: "export-dataset",
        about: "Write a data set as TFRecords, a zip or folder of PNG files, or webdataset",
        program: Program::Binary {
            package: "pggan-data",
            command: "export",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Data",
        name: "merge-dataset",
        about: "Join the parts that prepare-dataset --shard has made",
        program: Program::Binary {
            package: "pggan-data",
            command: "merge",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Networks",
        name: "train",
        about: "Train; again with the same arguments to go on with an unfinished run",
        program: Program::Binary {
            package: "pggan-train",
            command: "train",
            on_device: OnDevice::Yes,
        },
    },
    Job {
        group: "Networks",
        name: "generate",
        about: "Draw pictures from a trained network",
        program: Program::Binary {
            package: "pggan-train",
            command: "generate",
            on_device: OnDevice::Yes,
        },
    },
    Job {
        group: "Networks",
        name: "import",
        about: "Turn weights of another implementation into ours",
        program: Program::Binary {
            package: "pggan-train",
            command: "import",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Networks",
        name: "export",
        about: "Write a network for other programs: safetensors, PyTorch names, ONNX",
        program: Program::Binary {
            package: "pggan-train",
            command: "export",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Networks",
        name: "push-to-hub",
        about: "Upload a network to the Hugging Face hub",
        program: Program::Binary {
            package: "pggan-train",
            command: "push-to-hub",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Networks",
        name: "metrics",
        about: "Measure how good images are: of networks, or any; SWD, MS-SSIM, FID and others",
        program: Program::Binary {
            package: "pggan-train",
            command: "metrics",
            on_device: OnDevice::Yes,
        },
    },
    Job {
        group: "Networks",
        name: "import-features",
        about: "Turn published weights of a feature network (for FID and others) into ours",
        program: Program::Binary {
            package: "pggan-train",
            command: "import-features",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Networks",
        name: "bench",
        about: "Measure how fast training runs, and where its time goes",
        program: Program::Binary {
            package: "pggan-train",
            command: "bench",
            on_device: OnDevice::Yes,
        },
    },
    Job {
        group: "Project",
        name: "golden",
        about: "Check the networks and their training against numbers from elsewhere",
        program: Program::Binary {
            package: "pggan-train",
            command: "golden",
            on_device: OnDevice::No,
        },
    },
    Job {
        group: "Project",
        name: "ci",
        about: "Check formatting, lints, tests and documentation",
        program: Program::Script(".ci/run"),
    },
];

impl Job {
    pub(crate) fn named(name: &str) -> Option<&'static Job> {
        JOBS.iter().find(|job| job.name == name)
    }
}

/// The cargo feature that the `--device` among `args` asks for; `args` stay as they are.
///
/// `None` for the CPU, for `auto` (the best device that is built in) and for anything unknown, which the binary itself
/// reports better.
pub(crate) fn device_feature(args: &[OsString]) -> Option<&'static str> {
    let device = device(args)?.to_str()?;
    match device.split_once(':').map_or(device, |(kind, _)| kind) {
        "cuda" => Some("cuda"),
        "metal" => Some("metal"),
        _ => None,
    }
}

/// The value of the last `--device VALUE` or `--device=VALUE` before any `--`.
fn device(args: &[OsString]) -> Option<&OsStr> {
    let mut value = None;
    let mut args = args.iter().take_while(|&arg| arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--device" {
            value = args.next().map(OsString::as_os_str);
        } else if let Some(inline) = arg.to_str().and_then(|arg| arg.strip_prefix("--device=")) {
            value = Some(OsStr::new(inline));
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn names_are_unique_and_groups_are_together() {
        let names: BTreeSet<_> = JOBS.iter().map(|job| job.name).collect();
        assert_eq!(names.len(), JOBS.len());

        let mut groups: Vec<_> = JOBS.iter().map(|job| job.group).collect();
        groups.dedup();
        let distinct: BTreeSet<_> = groups.iter().collect();
        assert_eq!(
            distinct.len(),
            groups.len(),
            "a group's heading would be printed twice: {groups:?}"
        );
    }

    #[test]
    fn every_program_is_in_the_workspace() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for job in JOBS {
            let file = match job.program {
                Program::Binary { package, .. } => {
                    root.join("crates").join(package).join("Cargo.toml")
                }
                Program::Script(path) => root.join(path),
            };
            assert!(file.is_file(), "{} launches {}, which is not there", job.name, file.display());
        }
    }

    #[test]
    fn jobs_are_found_by_their_whole_name() {
        assert_eq!(Job::named("train").unwrap().name, "train");
        assert!(Job::named("trai").is_none());
        assert!(Job::named("").is_none());
    }

    #[test]
    fn device_chooses_the_feature() {
        #[track_caller]
        fn check(line: &str, feature: Option<&str>) {
            let args: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
            assert_eq!(device_feature(&args), feature, "{line}");
        }
        check("", None);
        check("--device cpu", None);
        check("--device auto", None);
        check("--device cuda", Some("cuda"));
        check("--device=cuda", Some("cuda"));
        check("--device cuda:1", Some("cuda"));
        check("--kimg 10 --device=cuda:0 --seed 3", Some("cuda"));
        check("--device metal", Some("metal"));
        check("--device cpu --device metal", Some("metal"));
        check("--device cuda --device=cpu", None);
        check("--device", None);
        check("--device=", None);
        check("--device cudax", None);
        check("--devices cuda", None);
        check("device cuda", None);
        check("-- --device cuda", None);
        check("--device -- cuda", None);
    }
}
