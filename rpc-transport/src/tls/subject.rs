//! From a certificate that was verified to a principal.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use rpc_core::context::Principal;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode, TagNumber};

/// The longest certificate that is read, in bytes. Each connection keeps one, and those of people and hosts have two thousand.
const LONGEST: usize = 16 * 1024;

/// The names that are kept of a certificate; those of large hosters have a hundred.
const NAMES: usize = 256;

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// Who has a certificate. `Err`: it is too large or too odd to say, and then nobody should act on a part of it.
pub(crate) fn principal(certificate: &[u8]) -> Result<Principal, String> {
    if certificate.len() > LONGEST {
        return Err(format!("it has {} bytes, and {LONGEST} are read", certificate.len()));
    }
    let parsed = Certificate::from_der(certificate).map_err(|error| format!("it is not as RFC 5280 says: {error}"))?;
    let parsed = parsed.tbs_certificate;
    let mut subject = String::new();
    write!(subject, "{}", parsed.subject).map_err(|_| "its subject cannot be written")?;
    let mut names = Vec::new();
    for extension in parsed.extensions.iter().flatten().filter(|extension| extension.extn_id == SUBJECT_ALT_NAME) {
        let all = Vec::<Any>::from_der(extension.extn_value.as_bytes()).map_err(|error| format!("its names: {error}"))?;
        names.extend(all.iter().filter_map(name));
    }
    if names.len() > NAMES {
        return Err(format!("it has {} names, and {NAMES} are read", names.len()));
    }
    Ok(Principal::Certificate { subject, names, certificate: Bytes::copy_from_slice(certificate) })
}

/// A name of a kind that is a text: mail address, host, URI or address.
fn name(name: &Any) -> Option<String> {
    use x509_cert::der::{Tag, Tagged};
    let Tag::ContextSpecific { number, constructed: false } = name.tag() else { return None };
    let (bytes, number) = (name.value(), [1, 2, 6, 7].into_iter().find(|n| TagNumber::new(*n) == number)?);
    if number == 7 {
        return match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(|four| Ipv4Addr::from(four).to_string()),
            16 => <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).to_string()),
            _ => None,
        };
    }
    // IA5String: what is not ASCII is not a name.
    bytes.is_ascii().then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn certificate(names: usize) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "CH");
        params.distinguished_name.push(DnType::CommonName, " #Zoë;\u{1}");
        let name = |n: usize| SanType::DnsName(format!("{n}.example").try_into().unwrap());
        params.subject_alt_names = (0..names).map(name).collect();
        params.subject_alt_names.push(SanType::IpAddress("2001:db8::1".parse().unwrap()));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_principal_has_what_the_certificate_says() {
        let der = certificate(2);
        let Ok(Principal::Certificate { subject, names, certificate }) = principal(&der) else { panic!("it is well formed") };
        assert_eq!(subject, r"CN=\ #Zoë\;\01,C=CH");
        assert_eq!(names, ["0.example", "1.example", "2001:db8::1"]);
        assert_eq!(certificate, der);
    }

    #[test]
    fn certificates_beyond_the_limits_are_refused() {
        assert!(principal(&certificate(NAMES - 1)).is_ok());
        assert!(principal(&certificate(NAMES)).unwrap_err().contains("257 names"));
        assert!(principal(&vec![0; LONGEST + 1]).unwrap_err().contains("16385 bytes"));
    }

    #[test]
    fn damaged_certificates_are_errors_or_other_certificates() {
        let der = certificate(3);
        for at in 0..der.len() {
            assert!(principal(&der[..at]).is_err(), "{at}");
            for value in [0, 1, 0x30, 0x7F, 0x80, 0x84, 0xFF, der[at] ^ 1, der[at] ^ 0x20, der[at].wrapping_add(1)] {
                let mut damaged = der.clone();
                damaged[at] = value;
                let _ = principal(&damaged);
            }
        }
    }
}
