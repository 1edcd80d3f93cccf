//! The files that an entry names, read whole.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::kubernetes::kubeconfig::{self, Files};
use crate::roster::{Listed, Route};

/// Of one file: certificates and kubeconfigs are some KiB.
const LONGEST: usize = 1 << 20;

/// Where paths begin.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

/// What one entry names. It holds keys: there is no `Debug`.
pub(super) struct Material {
    /// With the folder where its own paths begin.
    pub(super) kubeconfig: Option<(String, PathBuf)>,
    /// Of the API server, where it stands beside no kubeconfig.
    pub(super) ca: Vec<u8>,
    pub(super) identity: (Vec<u8>, Vec<u8>),
    pub(super) client_ca: Option<Vec<u8>>,
    /// Certificate and key for its names and port.
    pub(super) serving: Option<(Vec<u8>, Vec<u8>)>,
    /// Digest of what connections to its API server are made of.
    pub(super) connections: String,
    /// Of everything.
    pub(super) everything: String,
}

impl Folder {
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn bytes(&self, path: &Path, longest: usize) -> Result<Vec<u8>> {
        let failed = || Error::client(Kind::Invalid, format!("{} cannot be read", path.display()));
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|e| failed().because(e))?;
        file.take(longest as u64 + 1).read_to_end(&mut bytes).map_err(|e| failed().because(e))?;
        if bytes.len() > longest {
            return Err(failed().because(format!("it is longer than {longest} bytes")));
        }
        Ok(bytes)
    }

    pub(super) fn text(&self, path: &Path, longest: usize) -> Result<String> {
        let failed = |e| Error::client(Kind::Invalid, format!("{} is no text", path.display())).because(e);
        String::from_utf8(self.bytes(path, longest)?).map_err(failed)
    }

    fn named(&self, name: &str) -> Result<Vec<u8>> {
        self.bytes(&self.path(name), LONGEST)
    }

    /// Certificate and key.
    pub(super) fn pair(&self, (certificate, key): (&str, &str)) -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((self.named(certificate)?, self.named(key)?))
    }
}

impl Material {
    pub(super) fn read(folder: &Folder, listed: &Listed) -> Result<Self> {
        let mut sum = Sum::default();
        sum.add(listed.written["backend"].to_string().as_bytes());
        let (kubeconfig, ca, identity) = match &listed.route {
            Route::Kubeconfig(file) => {
                let path = folder.path(file);
                let below = Folder::new(path.parent().unwrap_or(Path::new("")));
                let text = folder.text(&path, LONGEST)?;
                sum.add(text.as_bytes());
                for name in kubeconfig::named_files(&text)? {
                    sum.add(&below.named(&name)?);
                }
                (Some((text, below.0)), Vec::new(), Default::default())
            }
            Route::FrontProxy { ca, identity: (certificate, key), .. } => {
                let (ca, identity) = (folder.named(ca)?, folder.pair((certificate, key))?);
                [&ca, &identity.0, &identity.1].iter().for_each(|part| sum.add(part));
                (None, ca, identity)
            }
        };
        let connections = sum.clone().digest();
        let client_ca = Some(listed.client_ca_file.as_str()).filter(|file| !file.is_empty());
        let client_ca = client_ca.map(|file| folder.named(file)).transpose()?;
        let serving = listed.serving.as_ref().map(|(certificate, key)| folder.pair((certificate, key))).transpose()?;
        sum.add(listed.written.to_string().as_bytes());
        sum.add(client_ca.as_deref().unwrap_or_default());
        for part in serving.iter().flat_map(|(certificate, key)| [certificate, key]) {
            sum.add(part);
        }
        Ok(Self { kubeconfig, ca, identity, client_ca, serving, connections, everything: sum.digest() })
    }
}

impl Material {
    /// PEM of the CA of the API server, wherever it stands.
    pub(super) fn authority(&self) -> Result<Cow<'_, [u8]>> {
        match &self.kubeconfig {
            Some((text, folder)) => Ok(kubeconfig::roots(text, &Files::Below(folder.clone()))?.into()),
            None => Ok(self.ca.as_slice().into()),
        }
    }
}

/// A digest of parts, each with its length.
#[derive(Clone, Default)]
pub(super) struct Sum(Sha256);

impl Sum {
    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    pub(super) fn digest(self) -> String {
        HEXLOWER.encode(&self.0.finalize())
    }
}
