//go:build !profile

package main

// stopProfile does nothing without the build tag profile; see profile.go.
func stopProfile() {}
