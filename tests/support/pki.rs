//! Certificates for tests: one CA that signs servers and clients.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// One CA.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    params: CertificateParams,
    ca_pem: String,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Pki {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        let ca_pem = params.self_signed(&key).expect("CA").pem();
        Self { params: params.clone(), issuer: Issuer::new(params, key), ca_pem }
    }

    /// This CA as another one vouches for it.
    pub fn signed_by(&self, other: &Self) -> String {
        self.params.signed_by(self.issuer.key(), &other.issuer).expect("CA").pem()
    }

    /// The CA's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A serving certificate for names and IP addresses.
    pub fn server(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A client certificate: the CN is the user, each O a group.
    pub fn client(&self, user: &str, groups: &[&str]) -> Pair {
        self.sign(&client_params(user, groups))
    }

    /// The same, valid for years after all others have come to their end.
    pub fn lasting_client(&self, user: &str, groups: &[&str]) -> Pair {
        let mut params = client_params(user, groups);
        params.not_after = rcgen::date_time_ymd(4100, 1, 1);
        self.sign(&params)
    }

    /// A client certificate with many alternative names, some 40 bytes each.
    pub fn large_client(&self, user: &str, names: usize) -> Pair {
        let names = (0..names).map(|n| format!("{n:06}.of-a-certificate-that-is-long.test"));
        let mut params = CertificateParams::new(names.collect::<Vec<_>>()).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, user);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

fn client_params(user: &str, groups: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(DnType::CommonName, user);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params
}
