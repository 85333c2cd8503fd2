package checkpoint

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"mailcutover/internal/durable"
)

// Read reads checkpoints, one in each line. Empty lines, and those that begin with #, count
// for nothing. Errors wrap [ErrBadCheckpoint], with the number of the line.
func Read(r io.Reader) ([]Checkpoint, error) {
	var all []Checkpoint
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSuffix(in.Text(), "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		c, err := Parse(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, c)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return all, nil
}

// Book is a file that checkpoints are appended to. Use [OpenBook].
type Book struct {
	path string

	mu   sync.Mutex
	last []Checkpoint // the last ones, at most keptLast
	size int64        // of the file, in whole lines
}

// keptLast is how many checkpoints a Book remembers.
const keptLast = 100

// OpenBook reads a file of checkpoints; one that isn't there is made with the first. A last line
// without its end was never acknowledged, and is cut off. A file with anything else than
// checkpoints in it is an error: it is nobody's to write on.
func OpenBook(path string) (*Book, error) {
	b := &Book{path: path}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the file of audit checkpoints: %w", err)
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	b.size = int64(len(whole))
	all, err := Read(bytes.NewReader(whole))
	if err != nil {
		return nil, fmt.Errorf("file of audit checkpoints %s: %w", path, err)
	}
	b.last = all[max(0, len(all)-keptLast):]
	return b, nil
}

// Last returns the last checkpoints, the newest last; none yet: nil.
func (b *Book) Last() []Checkpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Checkpoint(nil), b.last...)
}

// append makes a checkpoint durable. What a failed one leaves behind the last whole line is cut
// off by the next.
func (b *Book) append(c *Checkpoint) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("write to the file of audit checkpoints: %w", err)
		}
	}()
	file, err := os.OpenFile(b.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if info, err := file.Stat(); err != nil {
		return err
	} else if info.Size() < b.size {
		return fmt.Errorf("%s has %d bytes and had %d: somebody cut it", b.path, info.Size(), b.size)
	}
	if err := file.Truncate(b.size); err != nil {
		return err
	}
	text := c.String() + "\n"
	if _, err := file.WriteAt([]byte(text), b.size); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if b.size == 0 {
		if err := (durable.OS{}).SyncDir(filepath.Dir(b.path)); err != nil {
			return err
		}
	}
	b.size += int64(len(text))
	b.last = append(b.last, *c)
	b.last = b.last[max(0, len(b.last)-keptLast):]
	return nil
}
