package mailboxes

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// Options say what a mailbox is like. The zero value has 100 messages until 2026.
type Options struct {
	Seed     uint64
	Messages int       // 0: 100
	Until    time.Time // when the newest arrived; zero: 1 November 2026
	// Colleagues write to each other: their addresses are among the senders. Empty: some
	// names outside.
	Colleagues []string
}

// Message is a message as it lies in a folder.
type Message struct {
	Raw      []byte // with CRLF
	Flags    []string
	Internal time.Time // in whole seconds
}

// Folder is a folder with its messages in the order in which they came.
type Folder struct {
	Name     string // levels separated by "/"
	Messages []Message
}

// Mailbox is a mailbox.
type Mailbox struct {
	Address string
	Folders []Folder
}

// Names of folders that every mailbox has.
const (
	Inbox   = "INBOX"
	Sent    = "Gesendete Objekte"
	Drafts  = "Entwürfe"
	Trash   = "Papierkorb"
	Project = "Projekte/Größe & Maß/2026"
)

// plan is how the messages are shared out, in percent.
var plan = []struct {
	folder  string
	percent int
}{
	{Inbox, 45}, {Sent, 20}, {Project, 10}, {"Projekte", 4}, {"Bürgeranfragen/Straßenverkehr", 8}, {"Ablage/Alt ~ vor 2020", 5}, {Trash, 5}, {Drafts, 3},
}

// Make makes the mailbox of an address.
func Make(address string, o Options) *Mailbox {
	if o.Messages == 0 {
		o.Messages = 100
	}
	if o.Until.IsZero() {
		o.Until = time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)
	}
	if len(o.Colleagues) == 0 {
		o.Colleagues = []string{"a.schulz@out.example", "b.maier@out.example", "info@verein.example"}
	}
	h := fnv.New64a()
	h.Write([]byte(address)) // never fails
	w := &writer{r: rand.New(rand.NewPCG(o.Seed, h.Sum64())), address: address, o: o}
	m := &Mailbox{Address: address}
	for _, p := range plan {
		n := o.Messages * p.percent / 100
		if p.folder == Inbox {
			n = o.Messages
			for _, other := range plan[1:] {
				n -= o.Messages * other.percent / 100
			}
		}
		f := Folder{Name: p.folder}
		for range n {
			f.Messages = append(f.Messages, w.message(p.folder))
		}
		slices.SortStableFunc(f.Messages, func(a, b Message) int { return cmp.Compare(a.Internal.Unix(), b.Internal.Unix()) })
		m.Folders = append(m.Folders, f)
	}
	return m
}

// Folder returns the folder with a name, which is made if it isn't there.
func (m *Mailbox) Folder(name string) *Folder {
	i := slices.IndexFunc(m.Folders, func(f Folder) bool { return f.Name == name })
	if i < 0 {
		i = len(m.Folders)
		m.Folders = append(m.Folders, Folder{Name: name})
	}
	return &m.Folders[i]
}

// Count returns the number of messages.
func (m *Mailbox) Count() int {
	n := 0
	for _, f := range m.Folders {
		n += len(f.Messages)
	}
	return n
}

// Text makes a plain message from one to another with a Message-ID made of id.
func Text(id, from, to string, at time.Time, body string) Message {
	raw := fmt.Appendf(nil, "From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%s@made.example>\r\n\r\n%s\r\n", from, to, id, at.Format(time.RFC1123Z), id, body)
	return Message{Raw: raw, Internal: at.Truncate(time.Second)}
}
