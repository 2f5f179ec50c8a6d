//go:build !profile

package cli

// StopProfile does nothing without the build tag profile; see profile.go.
func StopProfile() {}
