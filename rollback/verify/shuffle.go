package verify

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// shuffle sorts records into partitions on disk, so that those which belong together are
// read together, and a run's memory doesn't grow with them. Records have one size. add is
// safe for concurrent use; partitions are read after close. The files are scratch: not
// fsynced, and worthless after the run.
type shuffle struct {
	folder, name string
	size         int // of a record in bytes
	parts        []partition
}

type partition struct {
	mu   sync.Mutex
	file *os.File
	buf  *bufio.Writer
}

// partitions is the number of files that records of one kind are spread over: an agency of
// 40,000 mailboxes with 5,000 messages each makes 32 MB of each.
const partitions = 128

// shuffleBuffer is the buffer of each file.
const shuffleBuffer = 8 << 10

// newShuffle makes the files of a kind of records.
func newShuffle(folder, name string, size int) (*shuffle, error) {
	s := &shuffle{folder: folder, name: name, size: size, parts: make([]partition, partitions)}
	for i := range s.parts {
		f, err := os.OpenFile(s.path(i), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make scratch files: %w", err), s.close())
		}
		s.parts[i].file, s.parts[i].buf = f, bufio.NewWriterSize(f, shuffleBuffer)
	}
	return s, nil
}

func (s *shuffle) path(part int) string {
	return filepath.Join(s.folder, fmt.Sprintf("%s-%03d", s.name, part))
}

// add appends a record to a partition.
func (s *shuffle) add(part int, record []byte) error {
	p := &s.parts[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.buf.Write(record); err != nil {
		return fmt.Errorf("write scratch file: %w", err)
	}
	return nil
}

// close ends writing. It may be called twice.
func (s *shuffle) close() error {
	var errs []error
	for i := range s.parts {
		p := &s.parts[i]
		if p.file != nil {
			errs = append(errs, p.buf.Flush(), p.file.Close())
			p.file, p.buf = nil, nil
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write scratch files: %w", err)
	}
	return nil
}

// each calls use for each record of a partition, in the order in which they were added. The
// record is use's for the call only.
func (s *shuffle) each(part int, use func(record []byte)) error {
	f, err := os.Open(s.path(part))
	if err != nil {
		return fmt.Errorf("read scratch file: %w", err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 256<<10)
	record := make([]byte, s.size)
	for {
		switch _, err := io.ReadFull(in, record); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read scratch file: %w", err)
		}
		use(record)
	}
}

// count returns how many records a partition has.
func (s *shuffle) count(part int) int {
	info, err := os.Stat(s.path(part))
	if err != nil {
		return 0
	}
	return int(info.Size()) / s.size
}
