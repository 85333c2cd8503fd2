package spool

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// What has lain in quarantine/ for too long goes, and is reported; what is younger stays,
// and so does what comes from a segment that is still there, and all mail.
func TestRetention(t *testing.T) {
	now := time.Now()
	o := Options{Dir: t.TempDir(), Now: func() time.Time { return now }, QuarantineAge: 24 * time.Hour, manual: true}
	s := openStore(t, o)
	defer func() { s.Close() }()
	id := accept(t, s, "body", rcpt("anna", "health", StateQuarantined))
	live := segmentName(s.last) + ".100-200"
	for _, name := range []string{"00000099.log.8-16", string(id) + bodySuffix, live} {
		if err := os.WriteFile(filepath.Join(o.Dir, quarantineDir, name), []byte("lost"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func() []string {
		t.Helper()
		names, err := s.Aside()
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if s.retain(); len(left()) != 3 || s.Status().Removed != 0 {
		t.Errorf("%q are left of what is new; %d removed", left(), s.Status().Removed)
	}
	now = now.Add(25 * time.Hour)
	s.retain()
	if names := left(); !slices.Equal(names, []string{live}) {
		t.Errorf("%q are left", names)
	}
	st := s.Status()
	if st.Removed != 2 || len(st.Removals) != 2 {
		t.Fatalf("%d removed, reported %+v", st.Removed, st.Removals)
	}
	for i, name := range []string{"00000099.log.8-16", string(id) + bodySuffix} {
		r := st.Removals[i]
		if r.Name != name || r.Bytes != 4 || r.Reason != "age" || !r.Time.Equal(now) || now.Sub(r.Aside) < 24*time.Hour {
			t.Errorf("removal %+v", r)
		}
	}
	if text, err := readBody(t, s, id); text != "body" || err != nil {
		t.Errorf("the message in quarantine: %q, %v", text, err)
	}
}

// Unless the operator says so, nothing goes; nor does anything from a spool that became
// another node's.
func TestNothingIsRemovedUnasked(t *testing.T) {
	for _, c := range []struct {
		name  string
		age   time.Duration
		owner string
	}{{"for ever", 0, ""}, {"another's", time.Hour, "node2"}} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{Dir: t.TempDir(), QuarantineAge: c.age}
			if c.owner != "" {
				o.Now = func() time.Time { return time.Now().Add(1000 * time.Hour) }
			}
			s := openStore(t, o)
			if c.owner != "" { // before there is a file, since the store may be looking for some
				if err := writeIdentity(s.folder, Identity{ID: s.ID(), Owner: c.owner}); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(o.Dir, quarantineDir, "00000099.log.8-16")
			old := time.Now().Add(-1000 * time.Hour)
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
			if c.owner != "" {
				s.retain()
			}
			s.Close()
			if c.owner == "" {
				s = openStore(t, o)
				s.Close()
			}
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		})
	}
}
