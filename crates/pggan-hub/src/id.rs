use std::fmt;
use std::str::FromStr;

/// A repository on the hub, and maybe one of its files: `owner/name`, `owner/name@revision`, `owner/name/folder/file.pth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    owner: String,
    repo: String,
    revision: Option<String>,
    file: Option<String>,
}

impl HubId {
    /// `owner/name`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.owner, self.repo)
    }

    /// The user or organisation.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's own name.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The branch, tag or commit that was asked for.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The file that was asked for.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }
}

impl FromStr for HubId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = |part: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(good)
        };
        let (owner, rest) = text.split_once('/').ok_or(())?;
        let (repo, file) = match rest.split_once('/') {
            Some((repo, file)) => (repo, Some(file)),
            None => (rest, None),
        };
        let (repo, revision) = match repo.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (repo, None),
        };
        let good = plain(owner)
            && plain(repo)
            && revision.is_none_or(plain)
            && file.is_none_or(|file| file.split('/').all(plain));
        if !good {
            return Err(());
        }
        let own = |text: Option<&str>| text.map(str::to_owned);
        Ok(Self {
            owner: owner.to_owned(),
            repo: repo.to_owned(),
            revision: own(revision),
            file: own(file),
        })
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.repo)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_an_owner_and_a_name() {
        let id: HubId = "huggan/pggan-celebahq-1024".parse().unwrap();
        assert_eq!((id.name(), id.file()), ("huggan/pggan-celebahq-1024".to_owned(), None));
        let id: HubId = "a/b@v1.0/nets/g.pth".parse().unwrap();
        assert_eq!((id.revision(), id.file()), (Some("v1.0"), Some("nets/g.pth")));
        assert_eq!(id.to_string(), "a/b@v1.0");
        for bad in
            ["b", "/a/b", "./a/b", "../a", "a/", "a//b", "a/b/../c", "a b/c", "a/b@", "C:\\x/y"]
        {
            assert!(bad.parse::<HubId>().is_err(), "{bad}");
        }
    }
}
