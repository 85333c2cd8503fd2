package desk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

// progress is the file in which a run's mailboxes stand that are done on this node, one per
// line, with what became of them: the journals don't know what the ledgers did. A line is only
// relied on once it is on disk; one that was cut off is a mailbox that is looked at once more.
type progress struct {
	mu   sync.Mutex
	file *os.File
	err  error
}

type finished struct {
	Mailbox routing.MailboxID `json:"mailbox"`
	Done    time.Time         `json:"done"`
	Result  recall.Result     `json:"result"`
}

// maxLine bounds a line of the file: some ten thousand messages that aren't back.
const maxLine = 16 << 20

const doneSuffix = ".done"

func (d *Desk) progressPath(id ID) string {
	return filepath.Join(d.o.Dir, "runs", string(id)+doneSuffix)
}

func (d *Desk) openProgress(id ID) (*progress, error) {
	path := d.progressPath(id)
	if _, err := durable.Open(nil, filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("open the progress of recall %s: %w", id, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the progress of recall %s: %w", id, err)
	}
	// Ends a line that a crash has cut.
	if _, err := f.WriteString("\n"); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write the progress of recall %s: %w", id, err)
	}
	return &progress{file: f}, nil
}

// add notes a mailbox.
func (p *progress) add(id routing.MailboxID, at time.Time, r *recall.Result) {
	line, err := json.Marshal(finished{id, at.UTC(), *r})
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		_, err = p.file.Write(append(line, '\n'))
	}
	if err == nil {
		err = p.file.Sync()
	}
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("write the progress of mailbox %s: %w", id, err)
	}
}

func (p *progress) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *progress) close() { _ = p.file.Close() } // each line was synced

// readProgress returns the mailboxes that are done on this node, and what became of them.
func (d *Desk) readProgress(id ID) (map[routing.MailboxID]recall.Result, error) {
	all := make(map[routing.MailboxID]recall.Result)
	f, err := os.Open(d.progressPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the progress of recall %s: %w", id, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var one finished
		if json.Unmarshal(lines.Bytes(), &one) == nil && !one.Mailbox.IsZero() {
			all[one.Mailbox] = one.Result
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the progress of recall %s: %w", id, err)
	}
	return all, nil
}

// rows returns the mailboxes of this node's share.
func (d *Desk) rows(ctx context.Context, r *Run) ([]routing.Row, error) {
	return d.rowsOf(ctx, r, d.o.Node)
}

// rowsOf returns the mailboxes of a node's share.
func (d *Desk) rowsOf(ctx context.Context, r *Run, node routing.NodeID) ([]routing.Row, error) {
	m := d.o.Replica.State().Mapping(r.Agency)
	if m == nil || m.Digest() != r.Mapping {
		var err error
		if m, err = d.o.Table.Mapping(ctx, r.Agency, r.Mapping); err != nil {
			return nil, fmt.Errorf("load the mapping of recall %s: %w", r.ID, err)
		}
	}
	var rows []routing.Row
	for row := range m.Rows() {
		if r.Owner(row.Mailbox) == node {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// watermarks returns those of a run, from this node's disk or another's, and what people
// should know about that. nil: everything is compared.
func (d *Desk) watermarks(ctx context.Context, r *Run) (*watermark.Set, []string) {
	if r.Watermarks.IsZero() {
		return nil, []string{"there are no watermarks: everything is compared, which takes longer and ends the same"}
	}
	set, err := d.files.Get(r.Watermarks)
	if err == nil {
		return set, nil
	}
	if d.o.Nodes != nil {
		text, fetched := d.o.Nodes.Watermarks(ctx, r.Watermarks)
		if fetched == nil {
			fetched = d.files.Take(r.Watermarks, text)
		}
		if fetched == nil {
			set, fetched = d.files.Get(r.Watermarks)
		}
		if fetched == nil {
			return set, nil
		}
		err = errors.Join(err, fetched)
	}
	d.o.Logger.Warn("recall: watermarks are not used", "run", r.ID, "agency", r.Agency, "error", err)
	return nil, []string{fmt.Sprintf("the watermarks can't be read: everything is compared, which takes longer and ends the same: %v", err)}
}

// WatermarkBytes returns a set that lies on this node, for another. The error wraps
// fs.ErrNotExist if it doesn't.
func (d *Desk) WatermarkBytes(digest routing.Digest) ([]byte, error) { return d.files.Bytes(digest) }
