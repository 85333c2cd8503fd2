package replica

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

var errDisk = errors.New("disk failed")

const recordsPath = "/d/" + recordsFile

// filled is a disk with the copy of a table of two agencies, one of them regressed, and
// one fixed address.
func filled(t *testing.T) (*world, *memdisk.Disk) {
	t.Helper()
	w := newWorld(t, "health", "works")
	w.table.setAll(routing.Update{Fixed: []routing.Fixed{{Address: "all@example.org", Kind: "group", Platform: "ox"}}})
	disk := memdisk.New()
	w.start(Options{Dir: "/d", Disk: disk})
	works := w.table.agencies["works"]
	works.Epoch.Number = 7
	w.wait(w.table.set(works))
	works.Epoch.Number = 6
	w.wait(w.table.set(works))
	w.stop()
	return w, disk
}

// reopen opens the copy without a table behind it.
func reopen(t *testing.T, disk *memdisk.Disk) *Replica {
	t.Helper()
	rep, err := Open(Options{Dir: "/d", Disk: disk, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func asideFiles(disk *memdisk.Disk) (names []string) {
	for name := range disk.Files() {
		if strings.Contains(name, ".aside-") {
			names = append(names, name)
		}
	}
	return names
}

func TestTheCopyOnDiskIsTheState(t *testing.T) {
	w, disk := filled(t)
	rep := reopen(t, disk)
	a, b := w.rep.State(), rep.State()
	if a.Position() != b.Position() || !slices.Equal(a.Agencies(), b.Agencies()) || !slices.Equal(a.Domains(), b.Domains()) {
		t.Errorf("%+v, %+v", a, b)
	}
	for _, address := range []routing.Address{anna("health"), anna("works"), "all@example.org", "nobody@example.org", "a@foreign.example"} {
		if x, y := a.DecideAddress(address, "+"), b.DecideAddress(address, "+"); x != y {
			t.Errorf("%s: %+v in memory, %+v from disk", address, x, y)
		}
	}
	if d := b.DecideAddress(anna("works"), ""); d.Reason != routing.ReasonRegressed {
		t.Errorf("what was seen is forgotten: %+v", d)
	}
	if s := rep.Status(); s.Open || s.Reason != reasonNotLoaded || s.OnDisk != b.Position() {
		t.Errorf("%+v", s)
	}
}

func TestEveryDamageIsFound(t *testing.T) {
	_, disk := filled(t)
	whole := disk.Files()[recordsPath]
	damaged := map[string][]byte{
		"empty":   {},
		"foreign": []byte("dovecot index\n"),
		"twice":   append(slices.Clone(whole), whole...),
	}
	// What has the right digest must have the right records too.
	for what, change := range map[string][2]string{
		"CRC of a record":  {`"phase":"source"`, `"phase":"target"`},
		"other format":     {`"format":2`, `"format":3`},
		"a record less":    {`"records":`, `"records":1`},
		"kind of a record": {" domain ", " demon "},
	} {
		lines := strings.SplitAfter(string(whole), "\n")
		text := strings.Join(lines[:len(lines)-2], "")
		text = strings.Replace(text, change[0], change[1], 1)
		if what != "CRC of a record" {
			text = withChecksums(text)
		}
		damaged[what] = []byte(text + fmt.Sprintf("end %x\n", sha256.Sum256([]byte(text))))
	}
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 1
		damaged[fmt.Sprintf("byte %d", i)] = b
		damaged[fmt.Sprintf("torn at %d", i)] = whole[:i]
	}
	for name, b := range damaged {
		disk := disk.Restart(memdisk.LoseAll)
		disk.Change(recordsPath, b)
		rep := reopen(t, disk)
		if s := rep.State(); s.Len() != 0 || s.Position() != (routing.Position{}) {
			t.Fatalf("%s: loaded %+v", name, s.Position())
		}
		aside := asideFiles(disk)
		if len(aside) != 1 || string(disk.Files()[aside[0]]) != string(b) {
			t.Fatalf("%s: set aside: %q", name, aside)
		}
	}
}

// withChecksums puts the right CRC before each line.
func withChecksums(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		record := strings.TrimSuffix(line[9:], "\n")
		fmt.Fprintf(&b, "%08x %s\n", crc32.Checksum([]byte(record), castagnoli), record)
	}
	return b.String()
}

func TestADamagedMappingIsLoadedFromTheTable(t *testing.T) {
	for name, harm := range map[string]func(b []byte) []byte{
		"changed": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"torn":    func(b []byte) []byte { return b[:len(b)/2] },
		"gone":    func([]byte) []byte { return nil },
	} {
		w, disk := filled(t)
		health, _ := w.rep.State().Agency("health")
		path := "/d/" + mappingFile("health", health.Mapping)
		disk.Change(path, harm(disk.Files()[path]))
		rep := reopen(t, disk)
		if d := rep.State().DecideAddress(anna("health"), ""); d.Reason != routing.ReasonTableUnavail {
			t.Errorf("%s: %+v", name, d)
		}
		if got := len(asideFiles(disk)); got != 1 && name != "gone" {
			t.Errorf("%s: %d files set aside", name, got)
		}
		w.table.loads = 0
		w.start(Options{Dir: "/d", Disk: disk})
		w.await("open", func() bool { return w.rep.Status().Open })
		if d := w.decide(anna("health")); d.Reason != routing.ReasonOpen || w.table.loads != 1 {
			t.Errorf("%s: %+v, %d mappings loaded", name, d, w.table.loads)
		}
		w.stop()
		if _, ok := disk.Files()[path]; !ok {
			t.Errorf("%s: not written again", name)
		}
	}
}

func TestANewMappingWritesItsOwnSize(t *testing.T) {
	w := newWorld(t)
	var many []routing.Address
	for n := range 200 {
		many = append(many, routing.Address(fmt.Sprintf("a%d.works@example.org", n)))
	}
	w.table.set(w.newAgency("works", 2, many...))
	health := w.newAgency("health", 1, anna("health"))
	w.table.set(health)
	disk := memdisk.New()
	w.start(Options{Dir: "/d", Disk: disk})
	w.wait(w.table.pos)
	w.await("on disk", func() bool { return w.rep.Status().OnDisk == w.table.pos })
	before, whole := disk.Written(), len(disk.Files()[recordsPath])
	old := mappingFile("health", health.Mapping)
	m := w.mapping("health", 1, anna("health"), "bert.health@example.org")
	health.Mapping, health.Epoch = m.Digest(), health.Epoch.Next()
	pos := w.table.set(health)
	w.wait(pos)
	w.await("on disk", func() bool { return w.rep.Status().OnDisk == pos })
	if got := disk.Written() - before; got < m.Size() || got > m.Size()+whole {
		t.Errorf("%d bytes written, want those of the mapping, %d, and of one record", got, m.Size())
	}
	w.stop()
	files := disk.Files()
	if _, ok := files["/d/"+old]; ok || len(files) != 3 {
		t.Errorf("files: %q", slices.Collect(maps.Keys(files)))
	}
}

func TestADirectoryThatCannotBeUsed(t *testing.T) {
	disk := memdisk.New()
	disk.FailAfter(0, errDisk)
	if _, err := Open(Options{Dir: "/d", Disk: disk}); err == nil {
		t.Error("no error")
	}
}

func TestACopyOfAnotherIncarnationStaysClosed(t *testing.T) {
	w, disk := filled(t)
	w.table.do(func() { w.table.pos = routing.Position{Incarnation: "other", Revision: 100} })
	w.start(Options{Dir: "/d", Disk: disk})
	w.await("refused", func() bool { return strings.Contains(w.rep.Status().Reason, "other") })
	if s := w.rep.Status(); s.Open || s.Position.Incarnation != "first" {
		t.Errorf("%+v", s)
	}
	w.stop()
	if got := reopen(t, disk).State().Position().Incarnation; got != "first" {
		t.Errorf("the copy is of %s", got)
	}
}

func TestARealDirectory(t *testing.T) {
	w := newWorld(t, "health")
	dir := filepath.Join(t.TempDir(), "replica")
	w.start(Options{Dir: dir})
	w.wait(routing.Position{Incarnation: "first", Revision: 2})
	w.stop()
	w.table.do(func() { w.table.down = table.ErrUnavailable })
	began := time.Now()
	w.start(Options{Dir: dir})
	if d := w.decide(anna("health")); d.Reason != routing.ReasonOpen || time.Since(began) > time.Minute {
		t.Errorf("%+v", d)
	}
	if s := w.rep.Status(); s.OnDisk.Revision != 2 || s.Open {
		t.Errorf("%+v", s)
	}
}
