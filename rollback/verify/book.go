package verify

import (
	"sync"

	"mailcutover/routing"
)

// book numbers the mailboxes and names of folders that a run meets, so that records on disk
// are small. Safe for concurrent use.
type book struct {
	mu      sync.Mutex
	numbers map[routing.MailboxID]uint32
	boxes   []boxed
	folders map[string]uint32
	names   []string
}

// boxed is what the book has of a mailbox.
type boxed struct {
	id       routing.MailboxID
	agency   routing.AgencyID
	read     bool // its source side was read to the end
	compared bool // both sides were
	holds    int  // messages on its target side
}

func newBook() *book {
	return &book{numbers: make(map[routing.MailboxID]uint32), folders: make(map[string]uint32)}
}

// index returns a mailbox's number.
func (b *book) index(id routing.MailboxID, agency routing.AgencyID) uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, ok := b.numbers[id]
	if !ok {
		i = uint32(len(b.boxes))
		b.numbers[id] = i
		b.boxes = append(b.boxes, boxed{id: id, agency: agency})
	}
	return i
}

// note changes what is known of a mailbox.
func (b *book) note(i uint32, change func(*boxed)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.boxes[i])
}

// at returns what is known of a mailbox.
func (b *book) at(i uint32) boxed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.boxes[i]
}

// folder returns the number of a folder's name.
func (b *book) folder(name string) uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, ok := b.folders[name]
	if !ok {
		i = uint32(len(b.names))
		b.folders[name] = i
		b.names = append(b.names, name)
	}
	return i
}

// name returns the name of a folder's number.
func (b *book) name(i uint32) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names[i]
}
