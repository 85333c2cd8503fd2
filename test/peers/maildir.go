package peers

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Message is a message as a platform stored it.
type Message struct {
	Mailbox string // user@domain
	File    string
	Raw     []byte    // line ends are LF, and the platform's own headers stand on top
	Time    time.Time // of delivery, to the microsecond
}

// maildirs is a directory of Maildirs. Its methods may be called while mail is being
// delivered.
type maildirs struct {
	base    string
	mailbox func(dir string, raw []byte) string // whose message it is
}

// Dir returns the directory in which each mailbox, user@domain, has its Maildir.
func (m maildirs) Dir() string { return m.base }

// All returns everything that was delivered, in the order of arrival.
func (m maildirs) All(t TB) []Message {
	t.Helper()
	var all []Message
	// new before cur: a message that is moved meanwhile is read twice, not missed.
	for _, sub := range []string{"new", "cur"} {
		files, err := filepath.Glob(filepath.Join(m.base, "*", sub, "*"))
		if err != nil {
			t.Fatalf("list mailboxes: %v", err)
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue // moved from new to cur
			}
			if err != nil {
				t.Fatalf("read a mailbox: %v", err)
			}
			dir := filepath.Base(filepath.Dir(filepath.Dir(file)))
			all = append(all, Message{Mailbox: m.mailbox(dir, raw), File: file, Raw: raw, Time: delivered(file)})
		}
	}
	slices.SortStableFunc(all, func(a, b Message) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.key(), b.key()))
	})
	return slices.CompactFunc(all, func(a, b Message) bool { return a.key() == b.key() })
}

// key is the same for a message in new and in cur, where flags are added behind a colon.
func (m Message) key() string {
	name, _, _ := strings.Cut(filepath.Base(m.File), ":")
	return m.Mailbox + " " + name
}

// Messages returns what was delivered to user@domain, in the order of arrival.
func (m maildirs) Messages(t TB, mailbox string) []Message {
	t.Helper()
	return slices.DeleteFunc(m.All(t), func(msg Message) bool { return msg.Mailbox != mailbox })
}

// Mailboxes returns the mailboxes that got a message, sorted.
func (m maildirs) Mailboxes(t TB) []string {
	t.Helper()
	var names []string
	for _, msg := range m.All(t) {
		names = append(names, msg.Mailbox)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// WaitMessages waits until user@domain has n messages, at most 90 s, and returns them.
func (m maildirs) WaitMessages(t TB, mailbox string, n int) []Message {
	t.Helper()
	var messages []Message
	WaitFor(t, 90*time.Second, strconv.Itoa(n)+" messages for "+mailbox, func() bool {
		messages = m.Messages(t, mailbox)
		return len(messages) >= n
	})
	return messages
}

// uniqueName is how the name of a file in a Maildir begins, with Postfix and with
// Dovecot: seconds, and behind an M microseconds (maildir(5), "unique").
var uniqueName = regexp.MustCompile(`^(\d+)\.(?:[^.]*?)M(\d+)`)

// delivered returns the time in the name of a file in a Maildir, zero if it has none.
func delivered(file string) time.Time {
	f := uniqueName.FindStringSubmatch(filepath.Base(file))
	if f == nil {
		return time.Time{}
	}
	seconds, _ := strconv.ParseInt(f[1], 10, 64)
	micros, _ := strconv.ParseInt(f[2], 10, 64)
	return time.Unix(seconds, micros*1000)
}
