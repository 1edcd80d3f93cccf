use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SigningKey};

use super::*;
use crate::tls::certificates::pem;
use crate::tls::issued::new_request;

fn request_of(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::new(vec!["ignored.example".to_owned()]).expect("params");
    params.serialize_request(key).expect("request").der().to_vec()
}

fn in_pem(der: &[u8]) -> String {
    pem("CERTIFICATE REQUEST", der)
}

fn why(text: &str) -> String {
    PublicKey::requested(text).expect_err("refused").message().to_owned()
}

#[test]
fn keys_of_known_kinds_are_taken_and_are_what_was_sent() {
    for (algorithm, length) in [(&rcgen::PKCS_ECDSA_P256_SHA256, 65), (&rcgen::PKCS_ECDSA_P384_SHA384, 97)] {
        let key = KeyPair::generate_for(algorithm).expect("key");
        let found = PublicKey::requested(&in_pem(&request_of(&key))).expect("taken");
        assert_eq!(found.bytes().len(), length);
        assert_eq!(found.info(), rcgen::PublicKeyData::subject_public_key_info(&key));
    }
    let (_, request) = new_request().expect("made");
    PublicKey::requested(&request).expect("as the command line makes it");
}

/// An RSA key of so many bits with its request.
fn rsa(bits: aws_lc_rs::rsa::KeySize) -> (KeyPair, String) {
    use aws_lc_rs::encoding::AsDer as _;
    let pair = aws_lc_rs::rsa::KeyPair::generate(bits).expect("key");
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("DER");
    let key = KeyPair::try_from(der.as_ref()).expect("key");
    let request = in_pem(&request_of(&key));
    (key, request)
}

#[test]
fn rsa_keys_are_taken_up_to_4096_bits() {
    let (key, request) = rsa(aws_lc_rs::rsa::KeySize::Rsa2048);
    let found = PublicKey::requested(&request).expect("taken");
    assert_eq!(found.info(), rcgen::PublicKeyData::subject_public_key_info(&key));
}

#[test]
fn other_keys_are_not() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
    assert!(why(&in_pem(&request_of(&key))).contains("kind that is not signed"));
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("key");
    assert!(why(&in_pem(&request_of(&key))).contains("kind that is not signed"));
    for (modulus, exponent) in [
        (vec![0xff; 128], vec![1, 0, 1]),
        (vec![0xff; 1024], vec![1, 0, 1]),
        (vec![0xff; 256], vec![0xff; 256]),
        (vec![0xff; 256], vec![2]),
        (vec![], vec![]),
    ] {
        let info = PublicKey::Rsa(modulus, exponent).info();
        assert!(PublicKey::from_info(&info).is_err());
    }
}

#[test]
fn a_key_that_somebody_else_holds_is_refused() {
    let (mine, theirs) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
    let whole = request_of(&theirs);
    // What is signed is the first part; the signature is replaced by one of another key.
    let (_, parsed) = X509CertificationRequest::from_der(&whole).expect("reads");
    let info = parsed.certification_request_info.raw;
    let by = der::sequence(&[&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]]);
    let forged = der::sequence(&[info, &by, &der::bit_string(&mine.sign(info).expect("signed"))]);
    assert!(why(&in_pem(&forged)).contains("not signed by its own key"));
    let own = der::sequence(&[info, &by, &der::bit_string(&theirs.sign(info).expect("signed"))]);
    assert!(PublicKey::requested(&in_pem(&own)).is_ok(), "this is how one is made");
    let weak = der::sequence(&[&[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]]);
    let weakly = der::sequence(&[info, &weak, &der::bit_string(&theirs.sign(info).expect("signed"))]);
    assert!(why(&in_pem(&weakly)).contains("SHA-256"));
    let longer = [whole.as_slice(), &[0x05, 0x00]].concat();
    assert!(why(&in_pem(&longer)).contains("followed by something"));
}

#[test]
fn what_is_no_request_is_refused() {
    let (key, request) = new_request().expect("made");
    for text in ["", "hello", &key, &format!("{request}{request}"), &in_pem(b"x"), &"x".repeat(LONGEST + 1)] {
        assert!(PublicKey::requested(text).is_err(), "{text:.40}");
    }
    let padded = format!("{request}{}", "\n".repeat(LONGEST));
    assert!(why(&padded).contains("8 KiB"));
}

proptest! {
    /// Whatever is changed in a request: it is refused or has the key that it had, and nothing panics.
    #[test]
    fn a_changed_request_is_no_other_key(at in 0_usize..400, to in any::<u8>()) {
        let key = KeyPair::generate().expect("key");
        let mut der = request_of(&key);
        let at = at % der.len();
        der[at] = to;
        if let Ok(found) = PublicKey::requested(&in_pem(&der)) {
            prop_assert_eq!(found.info(), rcgen::PublicKeyData::subject_public_key_info(&key));
        }
    }
}
