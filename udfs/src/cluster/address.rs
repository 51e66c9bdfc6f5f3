//! The address of a scheduler.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use url::{Host, Url};

/// Port of a scheduler whose address names none.
const DEFAULT_PORT: u16 = 50050;

/// The address of a Ballista scheduler: `df://HOST[:PORT]`; the port is 50050 if none is given.
///
/// ```
/// use datafusion_rerank::cluster::ClusterAddress;
///
/// let address: ClusterAddress = "df://scheduler".parse()?;
/// assert_eq!(address.to_string(), "df://scheduler:50050");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterAddress {
    host: String,
    port: u16,
}

impl ClusterAddress {
    /// The host, IPv6 addresses in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address in the form that gRPC clients take.
    pub fn endpoint(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }
}

impl FromStr for ClusterAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("'{text}' is not the address of a scheduler; write df://HOST:PORT");
        let url = Url::parse(text).map_err(|_| wrong())?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.username().is_empty();
        if url.scheme() != "df" || !bare {
            return Err(wrong());
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => format!("[{address}]"),
            Some(host) if !host.to_string().is_empty() => host.to_string(),
            _ => return Err(wrong()),
        };
        Ok(Self { host, port: url.port().unwrap_or(DEFAULT_PORT) })
    }
}

impl Display for ClusterAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "df://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_host_and_perhaps_a_port() {
        for (text, endpoint) in [
            ("df://localhost", "http://localhost:50050"),
            ("df://10.0.0.1:7000/", "http://10.0.0.1:7000"),
            ("df://[::1]:7000", "http://[::1]:7000"),
        ] {
            assert_eq!(text.parse::<ClusterAddress>().unwrap().endpoint(), endpoint);
        }
        for wrong in ["localhost:50050", "http://localhost:50050", "df://", "df://h/path", "df://h:port", ""] {
            let error = wrong.parse::<ClusterAddress>().unwrap_err();
            assert!(error.ends_with("write df://HOST:PORT"), "{error}");
        }
    }
}
