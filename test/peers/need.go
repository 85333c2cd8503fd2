package peers

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// TB is what a peer needs of the test it belongs to. Both *testing.T and *testing.B
// are one; the package does not import testing, so that a benchmark program can be one
// as well.
type TB interface {
	Cleanup(func())
	Context() context.Context
	Failed() bool
	Fatalf(format string, args ...any)
	Helper()
	Logf(format string, args ...any)
	Name() string
	Skipf(format string, args ...any)
}

// list is the table of programs, shared with tools/peers.
//
//go:embed peers.txt
var list []byte

// programs returns the programs that the peer consists of; none if it isn't in the list.
func programs(peer string) (names, packages []string) {
	s := bufio.NewScanner(bytes.NewReader(list))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) == 3 && f[0] == peer {
			names = append(names, f[1])
			packages = append(packages, f[2])
		}
	}
	return names, packages
}

// Packages returns the Debian packages that the peer, named as in peers.txt, consists of.
func Packages(peer string) []string {
	_, packages := programs(peer)
	slices.Sort(packages)
	return slices.Compact(packages)
}

// lookPath finds a program also in the directories of system programs, which are not in
// every user's PATH.
func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	if !strings.Contains(program, "/") {
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if p, e := exec.LookPath(filepath.Join(dir, program)); e == nil {
				return p, nil
			}
		}
	}
	return "", err
}

// unpacked is where tools/peers unpacks packages whose programs can't be installed beside those of
// others: of Debian's MTAs there can be one.
const unpacked = "/opt/mailcutover-peers/"

// present reports whether a program of the list is there; not all of them are
// executable by everyone.
func present(program string) bool {
	if strings.HasPrefix(program, "/") {
		_, err := os.Stat(program)
		return err == nil
	}
	_, err := lookPath(program)
	return err == nil
}

// Need fails the test if one of the peers, named as in peers.txt, is not installed. The
// functions that start a peer call it themselves; a test calls it first to say at its
// top what it needs.
//
// With SKIP_PEERS=1 it skips the test and appends a line to the file that
// PEERS_SKIPPED_FILE names, from which "make test" makes its last line.
func Need(t TB, peers ...string) {
	t.Helper()
	if os.Getenv("SKIP_PEERS") == "1" {
		if err := recordSkip(t.Name()); err != nil {
			t.Fatalf("record a skipped test: %v", err)
		}
		t.Skipf("SKIP_PEERS=1: needs %s", strings.Join(peers, ", "))
	}
	for _, peer := range peers {
		names, packages := programs(peer)
		if len(names) == 0 {
			t.Fatalf("peer %q is not in test/peers/peers.txt", peer)
		}
		for i, name := range names {
			if !present(name) && strings.HasPrefix(name, unpacked) {
				t.Fatalf("peer %s: %s is missing: run tools/peers as root, which unpacks it from the package %s, or set SKIP_PEERS=1", peer, name, packages[i])
			}
			if !present(name) {
				t.Fatalf("peer %s: %s is missing: apt-get install %s, or set SKIP_PEERS=1", peer, name, packages[i])
			}
		}
	}
}

// recordSkip writes one line in one write, because several test processes append to the
// same file at a time.
func recordSkip(test string) error {
	name := os.Getenv("PEERS_SKIPPED_FILE")
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%s\n", test); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
