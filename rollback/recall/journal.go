package recall

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"mailcutover/internal/durable"
	"mailcutover/rollback/msgkey"
	"mailcutover/routing"
)

// ErrBusy is wrapped by the error about a mailbox whose journal somebody writes already.
var ErrBusy = errors.New("this mailbox is being worked on")

// kind is what a record says.
type kind string

const (
	kindIntent   kind = "intent"   // it is about to be put into a folder of To
	kindAppended kind = "appended" // To took it
	kindBack     kind = "back"     // and it was found there
	kindBefore   kind = "before"   // it was brought before, when it lay elsewhere, or as a retained copy
	kindSent     kind = "sent"     // a retained copy was handed over, to be delivered by SMTP
	kindThere    kind = "there"    // it was on To without us
	kindMoved    kind = "moved"    // it was on To, and is in the right folder now
	kindNotBack  kind = "not-back" // it isn't on To, or not where it should be; the next run tries again
	kindFolder   kind = "folder"   // a folder was made on To
	kindFlags    kind = "flags"    // To doesn't keep these flags, which so many messages had
)

// origin names a message on From for as long as it lies where it is.
type origin struct {
	Folder   string `json:"folder,omitempty"`
	Validity uint32 `json:"validity,omitempty"`
	UID      uint32 `json:"uid,omitempty"`
}

// record is a line of a journal.
type record struct {
	Kind kind `json:"kind"`
	origin
	Set  string     `json:"set,omitempty"` // instead of UID, of "there": UIDs as IMAP writes them
	Key  msgkey.Key `json:"key,omitzero"`
	Ours bool       `json:"ours,omitempty"` // Key is a transaction's
	Size int64      `json:"size,omitempty"`

	To         string `json:"to,omitempty"` // folder on To
	ToValidity uint32 `json:"to-validity,omitempty"`
	ToUID      uint32 `json:"to-uid,omitempty"`
	Rewritten  bool   `json:"rewritten,omitempty"`

	Class  Class          `json:"class,omitempty"`
	Reason string         `json:"reason,omitempty"`
	Flags  map[string]int `json:"flags,omitempty"`
}

// Journals are the journals of one operation and direction on this node: a file for each
// mailbox and each time that it was worked on, in a directory of their own. It is safe for
// concurrent use.
type Journals struct {
	disk durable.Disk
	dir  string

	mu      sync.Mutex
	busy    map[routing.MailboxID]bool
	secured map[routing.MailboxID]bool // all that is there is on the disk
}

// OpenJournals opens the directory, which is made if it isn't there. One process has it at a
// time.
func OpenJournals(dir string) (*Journals, error) { return OpenJournalsOn(durable.OS{}, dir) }

// OpenJournalsOn is OpenJournals on a disk of the caller's.
func OpenJournalsOn(disk durable.Disk, dir string) (*Journals, error) {
	if err := disk.MakeDir(dir); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", dir, err)
	}
	if err := disk.SyncDir(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("fsync directory %s: %w", filepath.Dir(dir), err)
	}
	return &Journals{disk: disk, dir: dir, busy: make(map[routing.MailboxID]bool), secured: make(map[routing.MailboxID]bool)}, nil
}

// Files of a mailbox: what this node wrote, and what others did, by node.
const (
	suffix      = ".recall"
	takenSuffix = ".taken"
)

// segments returns a mailbox's own files, oldest first, and the number of the next; behind them are those
// taken from other nodes.
func (j *Journals) segments(id routing.MailboxID) (names []string, next int, err error) {
	all, err := j.disk.Names(j.dir)
	if err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", j.dir, err)
	}
	prefix := id.String() + "-"
	var taken []string
	for _, name := range all {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, takenSuffix) {
			taken = append(taken, name)
			continue
		}
		number, ok := strings.CutPrefix(strings.TrimSuffix(name, suffix), prefix)
		if n, err := strconv.Atoi(number); ok && err == nil && strings.HasSuffix(name, suffix) {
			names, next = append(names, name), max(next, n+1)
		}
	}
	slices.Sort(names)
	slices.Sort(taken)
	return append(names, taken...), next, nil
}

// load reads what a mailbox's journal says. Lines that are cut or damaged say nothing: what
// they said is looked for on the platforms again.
func (j *Journals) load(id routing.MailboxID) (*account, int, error) {
	names, next, err := j.segments(id)
	if err != nil {
		return nil, 0, err
	}
	a := newAccount()
	for _, name := range names {
		if err := j.read(filepath.Join(j.dir, name), a); err != nil {
			return nil, 0, fmt.Errorf("read journal %s: %w", name, err)
		}
	}
	return a, next, nil
}

// maxRecord bounds a line: the set of UIDs of one "there" is cut before that.
const maxRecord = 256 << 10

func (j *Journals) read(path string, a *account) error {
	f, err := j.disk.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was made, and the power went
	}
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, maxRecord)
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			if len(line) > 0 {
				a.damaged++
			}
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if len(line) == 1 {
			continue // between two journals that were put together
		}
		r, ok := decode(line)
		if !ok {
			a.damaged++
			continue
		}
		a.apply(r)
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes a record as a line: checksum, space, JSON.
func encode(r *record) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	line := make([]byte, 0, len(text)+10)
	line = fmt.Appendf(line, "%08x ", crc32.Checksum(text, castagnoli))
	return append(append(line, text...), '\n'), nil
}

// decode reads a line; false: it isn't one that encode wrote.
func decode(line []byte) (*record, bool) {
	if len(line) < 11 || line[8] != ' ' || line[len(line)-1] != '\n' {
		return nil, false
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	text := line[9 : len(line)-1]
	if err != nil || crc32.Checksum(text, castagnoli) != uint32(sum) {
		return nil, false
	}
	r := new(record)
	return r, json.Unmarshal(text, r) == nil
}

// take gives a mailbox's journal to one writer.
func (j *Journals) take(id routing.MailboxID) (*journal, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.busy[id] {
		return nil, ErrBusy
	}
	a, next, err := j.load(id)
	if err != nil {
		return nil, err
	}
	if err := j.secure(id); err != nil {
		return nil, fmt.Errorf("fsync the journal of mailbox %s: %w", id, err)
	}
	j.busy[id] = true
	return &journal{j: j, id: id, number: next, account: a}, nil
}

// secure makes durable what a process before this one wrote and, since it was killed, may not have
// fsynced: it counts from now on. That is in the newest file of its own, as each process
// begins with this. j.mu is held.
func (j *Journals) secure(id routing.MailboxID) error {
	if j.secured[id] {
		return nil
	}
	names, next, err := j.segments(id)
	if err != nil {
		return err
	}
	if last := fmt.Sprintf("%s-%06d%s", id, next-1, suffix); slices.Contains(names, last) {
		f, err := j.disk.OpenAt(filepath.Join(j.dir, last))
		if err == nil {
			err = errors.Join(f.Sync(), f.Close(), j.disk.SyncDir(j.dir))
		}
		if err != nil {
			return err
		}
	}
	j.secured[id] = true
	return nil
}

// journal is a mailbox's journal while it is written. It belongs to one goroutine.
type journal struct {
	j       *Journals
	id      routing.MailboxID
	number  int
	file    durable.File // nil until something is written
	unsaved bool
	*account
}

// write notes records, which count from then on. They are on the disk after save.
func (w *journal) write(records ...record) error {
	if len(records) == 0 {
		return nil
	}
	if w.file == nil {
		path := filepath.Join(w.j.dir, fmt.Sprintf("%s-%06d%s", w.id, w.number, suffix))
		f, err := w.j.disk.Create(path)
		if err == nil {
			err = w.j.disk.SyncDir(w.j.dir)
		}
		if err != nil {
			return fmt.Errorf("make journal %s: %w", path, err)
		}
		w.file = f
	}
	var lines []byte
	for i := range records {
		line, err := encode(&records[i])
		if err != nil {
			return fmt.Errorf("write the journal of mailbox %s: %w", w.id, err)
		}
		lines = append(lines, line...)
	}
	w.unsaved = true
	if _, err := w.file.Write(lines); err != nil {
		return fmt.Errorf("write the journal of mailbox %s: %w", w.id, err)
	}
	for i := range records {
		w.apply(&records[i])
	}
	return nil
}

// save returns when all records are on the disk.
func (w *journal) save() error {
	if !w.unsaved {
		return nil
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("fsync the journal of mailbox %s: %w", w.id, err)
	}
	w.unsaved = false
	return nil
}

// close saves, and gives the journal back.
func (w *journal) close() error {
	err := w.save()
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
	}
	w.j.mu.Lock()
	delete(w.j.busy, w.id)
	if err != nil {
		delete(w.j.secured, w.id)
	}
	w.j.mu.Unlock()
	return err
}
