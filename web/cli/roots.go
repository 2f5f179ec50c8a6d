package cli

// The certificate authorities of Mozilla, for systems without any, such as a container that has
// only this program. If the system has its own, Go uses those.
import _ "golang.org/x/crypto/x509roots/fallback" // registers them
