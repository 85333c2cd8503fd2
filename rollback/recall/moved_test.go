package recall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/rollback/mailstore"
	"mailcutover/routing"
)

// cabinet is a mailbox of several folders in memory.
type cabinet struct {
	mailstore.Session // of the folder that is selected
	boxes             []*box
	selects           func(name string) // before a folder is selected
}

func newCabinet(boxes map[string]*box) *cabinet {
	c := new(cabinet)
	for name, b := range boxes {
		b.folder.Name = name
		if name != "INBOX" {
			b.folder.Role = mailstore.RoleNone
		}
		c.boxes = append(c.boxes, b)
	}
	slices.SortFunc(c.boxes, func(a, b *box) int { return strings.Compare(a.folder.Name, b.folder.Name) })
	return c
}

func (c *cabinet) box(name string) *box {
	for _, b := range c.boxes {
		if b.folder.Name == name {
			return b
		}
	}
	return nil
}

func (c *cabinet) Folders(ctx context.Context) (all []mailstore.Folder, err error) {
	for _, b := range c.boxes {
		f, _ := b.Folders(ctx)
		f[0].Messages -= uint32(len(b.stored) - len(slices.DeleteFunc(slices.Clone(b.stored), func(s string) bool { return s == "" })))
		all = append(all, f...)
	}
	return all, nil
}

func (c *cabinet) Select(ctx context.Context, name string, write bool) (mailstore.Folder, error) {
	if c.selects != nil {
		c.selects(name)
	}
	b := c.box(name)
	if b == nil {
		return mailstore.Folder{}, fmt.Errorf("open %s: %w", name, mailstore.ErrNoFolder)
	}
	c.Session = b
	return b.Select(ctx, name, write)
}

func (c *cabinet) AppendMany(ctx context.Context, name string) mailstore.Appender {
	return c.box(name).AppendMany(ctx, name)
}

func (c *cabinet) Close() error { return nil }

func (c *cabinet) Open(context.Context, routing.Row, mailstore.Side) (mailstore.Session, error) {
	return c, nil
}

func (c *cabinet) appends() (n int) {
	for _, b := range c.boxes {
		n += b.appends
	}
	return n
}

// At that moment a user works, or somebody renames a folder: once.
func (c *cabinet) whenSelected(name string, f func()) {
	done := false
	c.selects = func(selected string) {
		if selected == name && !done {
			done = true
			f()
		}
	}
}

func bringCabinet(t *testing.T, j *Journals, from, to *cabinet) (Result, error) {
	t.Helper()
	e, err := New(Options{From: from, To: to, Journals: j, Settle: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return e.Mailbox(t.Context(), Job{Agency: "health", Direction: Direction{From: "ox", To: "exchange", Side: mailstore.Target}, Row: routing.Row{Mailbox: testID(t)}})
}

// What a user moves on To while it is looked through isn't missing there, and doesn't come twice.
func TestMovedWhileLookedAt(t *testing.T) {
	for name, work := range map[string]func(to *cabinet){
		"into a folder that was looked at": func(to *cabinet) {
			inbox, other := to.box("INBOX"), to.box("Zettel")
			inbox.stored, other.stored[0] = append(inbox.stored, other.stored[0]), ""
		},
		"and new mail comes": func(to *cabinet) {
			inbox, other := to.box("INBOX"), to.box("Zettel")
			inbox.stored, other.stored[0] = append(inbox.stored, other.stored[0]), ""
			other.stored = append(other.stored, text("new", ""))
		},
		"with its folder": func(to *cabinet) { to.box("Zettel").folder.Name = "Ablage" },
	} {
		t.Run(name, func(t *testing.T) {
			j, err := OpenJournalsOn(memdisk.New(), "/recall")
			if err != nil {
				t.Fatal(err)
			}
			from := newCabinet(map[string]*box{"INBOX": newBox(text("old", ""))})
			to := newCabinet(map[string]*box{"INBOX": newBox(text("one", "")), "Zettel": newBox(text("old", ""), text("two", ""))})
			to.whenSelected("Zettel", func() { work(to) })
			r, err := bringCabinet(t, j, from, to)
			if errors.Is(err, errVanished) && !mailstore.Platform(err) {
				r, err = bringCabinet(t, j, from, to)
			}
			if err != nil || !r.Done || r.Copied != 1 || to.appends() != 0 {
				t.Errorf("%d appended, %+v, %v", to.appends(), r, err)
			}
		})
	}
}

// A folder of From that is renamed while a pass looks at it isn't passed over.
func TestRenamedFolder(t *testing.T) {
	j, err := OpenJournalsOn(memdisk.New(), "/recall")
	if err != nil {
		t.Fatal(err)
	}
	from := newCabinet(map[string]*box{"Akten": newBox(text("one", ""))})
	to := newCabinet(map[string]*box{"INBOX": newBox(), "Akten": newBox(), "Ablage": newBox()})
	from.whenSelected("Akten", func() { from.boxes[0].folder.Name = "Ablage" })
	r, err := bringCabinet(t, j, from, to)
	if !errors.Is(err, errVanished) || mailstore.Platform(err) || r.Done {
		t.Fatalf("%+v, %v", r, err)
	}
	r, err = bringCabinet(t, j, from, to)
	if err != nil || !r.Done || r.ByUsers != 1 || to.box("Ablage").appends != 1 || to.appends() != 1 {
		t.Errorf("%d appended, %+v, %v", to.appends(), r, err)
	}
}

// What was sent before the process was killed may come when the next run looks already: a platform works
// off what it has of a connection that is gone.
func TestComesLate(t *testing.T) {
	j, err := OpenJournalsOn(memdisk.New(), "/recall")
	if err != nil {
		t.Fatal(err)
	}
	from := newCabinet(map[string]*box{"INBOX": newBox(text("one", ""), text("two", ""), text("three", ""))})
	to := newCabinet(map[string]*box{"INBOX": newBox(text("other", ""))})
	var begun []record
	for uid := range uint32(3) {
		begun = append(begun, record{Kind: kindIntent, origin: origin{"INBOX", 1, uid + 1}, To: "INBOX"})
	}
	writeAll(t, j, testID(t), begun...)
	looks := 0
	to.selects = func(name string) {
		if looks++; looks == 2 || looks == 3 { // one each time, and the third never
			to.box(name).stored = append(to.box(name).stored, from.box(name).stored[looks-2])
		}
	}
	r, err := bringCabinet(t, j, from, to)
	if err != nil || !r.Done || r.ByUsers != 3 || to.appends() != 1 || len(to.box("INBOX").stored) != 4 {
		t.Errorf("%d appended, %d there, %+v, %v", to.appends(), len(to.box("INBOX").stored), r, err)
	}
}
