// Package packages has no code, only the test that the Debian package installs, upgrades and goes
// as it should, and that the units of systemd are as strict as they say. The package is built as a
// release is, and installed by dpkg, with its scripts, into a copy of this very machine: an overlay
// in a mount namespace of its own, of which nothing is left.
package packages
