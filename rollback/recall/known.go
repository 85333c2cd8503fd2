package recall

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"mailcutover/mail"
	"mailcutover/rollback/msgkey"
	"mailcutover/routing"
)

// Sent notes that retained copies of messages were delivered to To for a mailbox, because From
// couldn't be read. When it returns nil that is on the disk, and recall doesn't bring these
// messages again, whatever the mailbox has by then. Call it with what was noted before and it
// adds nothing. ErrBusy while the mailbox is being worked on.
func (j *Journals) Sent(id routing.MailboxID, messages ...mail.TransactionID) (err error) {
	w, err := j.take(id)
	if err != nil {
		return fmt.Errorf("note copies delivered for mailbox %s: %w", id, err)
	}
	defer func() { err = errors.Join(err, w.close()) }()
	var records []record
	for _, m := range messages {
		if k := msgkey.TransactionKey(m); !k.IsZero() && !w.sent[k] {
			records = append(records, record{Kind: kindSent, Key: k, Ours: true})
		}
	}
	return w.write(records...)
}

// Result returns what has become of a mailbox as its journal has it, without asking a
// platform, and without what only ledgers know; false: there is no journal of it.
func (j *Journals) Result(id routing.MailboxID) (Result, bool, error) {
	names, _, err := j.segments(id)
	if err != nil || len(names) == 0 {
		return Result{}, false, err
	}
	a, _, err := j.load(id)
	if err != nil {
		return Result{}, false, err
	}
	return a.result(nil), true, nil
}

// Accounted returns the keys of the transactions of a mailbox that were found on To, whoever
// brought them.
func (j *Journals) Accounted(id routing.MailboxID) ([]msgkey.Key, error) {
	a, _, err := j.load(id)
	if err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(a.ours)), nil
}

// Export returns a mailbox's journal for another node, compressed by gzip: all that is known of
// it here, also from other nodes. nil: nothing is. It may be called while the mailbox is worked
// on; what comes later isn't in it.
func (j *Journals) Export(id routing.MailboxID) ([]byte, error) {
	names, _, err := j.segments(id)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for _, name := range names {
		if err := j.copy(z, name); err != nil {
			return nil, fmt.Errorf("read journal %s: %w", name, err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("read the journal of mailbox %s: %w", id, err)
	}
	return b.Bytes(), nil
}

func (j *Journals) copy(to io.Writer, name string) error {
	f, err := j.disk.Open(filepath.Join(j.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was made, and the power went
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(to, f); err != nil {
		return err
	}
	_, err = to.Write([]byte{'\n'}) // ends a line that was cut
	return err
}

// maxTaken bounds another node's journal of one mailbox, in bytes.
const maxTaken = 256 << 20

// Take keeps what another node's Export returned for a mailbox, in the place of what it returned
// before. When it returns nil that is on the disk, and counts like what this node wrote itself.
// ErrBusy while the mailbox is being worked on.
func (j *Journals) Take(id routing.MailboxID, node routing.NodeID, text []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("take the journal of mailbox %s from node %s: %w", id, node, err)
		}
	}()
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return err
	}
	lines, err := io.ReadAll(io.LimitReader(z, maxTaken+1))
	if err == nil && len(lines) > maxTaken {
		err = fmt.Errorf("it has more than %d bytes", maxTaken)
	}
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.busy[id] {
		return ErrBusy
	}
	path := filepath.Join(j.dir, fmt.Sprintf("%s-%x%s", id, sha256.Sum256([]byte(node)), takenSuffix))
	if err := j.disk.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := j.disk.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := j.disk.Rename(path+".new", path); err != nil {
		return err
	}
	return j.disk.SyncDir(j.dir)
}

// Mailboxes returns those that there is a journal of on this node.
func (j *Journals) Mailboxes() ([]routing.MailboxID, error) {
	names, err := j.disk.Names(j.dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", j.dir, err)
	}
	known := make(map[routing.MailboxID]struct{})
	for _, name := range names {
		if i := strings.LastIndexByte(name, '-'); i > 0 && (strings.HasSuffix(name, suffix) || strings.HasSuffix(name, takenSuffix)) {
			if id, err := routing.ParseMailboxID(name[:i]); err == nil {
				known[id] = struct{}{}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(known), func(a, b routing.MailboxID) int { return bytes.Compare(a[:], b[:]) }), nil
}
