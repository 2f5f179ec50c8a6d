//go:build !profile

package main

func stopProfile() {}
