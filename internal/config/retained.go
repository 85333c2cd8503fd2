package config

import (
	"errors"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"mailcutover/internal/seal"
)

// Retained says how copies are kept of what went to targets, until the way back is over.
type Retained struct {
	Directory   string        `config:"directory" path:"yes"` // empty: in Data
	AgencyBytes Size          `config:"agency_bytes"`         // most of one agency; the oldest go first. 0: none are kept
	TotalBytes  Size          `config:"total_bytes"`          // most of all
	MaxAge      time.Duration `config:"max_age"`              // after which they go; 0: never
	Compression Compression   `config:"compression"`
}

// Compression is how copies are compressed.
type Compression string

const (
	CompressionZstd Compression = "zstd" // at its fastest
	CompressionNone Compression = "none"
)

func (Compression) words() []string { return []string{"zstd", "none"} }

// Encryption is that of mail on this node's disk: spooled and retained.
type Encryption struct {
	KeyFile string `config:"key_file" path:"yes"` // package seal says what is in it; empty: mail isn't encrypted
}

func defaultRetained() Retained {
	return Retained{AgencyBytes: 20 << 30, TotalBytes: 100 << 30, MaxAge: 90 * 24 * time.Hour, Compression: CompressionZstd}
}

// retained looks at the copies of mail, and at the keys of what is on the disk.
func (c *checker) retained(cfg *Config) {
	r := &cfg.Retained
	if strings.ContainsFunc(r.Directory, unicode.IsControl) {
		c.add(Problem{Key: "retained.directory", Value: show(r.Directory), Want: "a directory, or \"\" for one in data"})
	}
	if r.AgencyBytes != 0 && r.AgencyBytes < 64<<20 {
		c.add(Problem{Key: "retained.agency_bytes", Value: r.AgencyBytes.String(), Want: "64MiB or more, or 0 to keep none"})
	}
	if r.AgencyBytes != 0 && r.TotalBytes < r.AgencyBytes {
		c.add(Problem{Key: "retained.total_bytes", Value: r.TotalBytes.String(), Want: "at least retained.agency_bytes, " + r.AgencyBytes.String()}, "retained.agency_bytes")
	}
	if d := r.MaxAge; d != 0 && d < 24*time.Hour {
		c.add(Problem{Key: "retained.max_age", Value: shortDuration(d), Want: "24h or more, or 0 for never", Hint: "the way back needs them"})
	}
	if path := cfg.Encryption.KeyFile; path != "" {
		c.keys("encryption.key_file", path)
	}
}

// keys checks a file of keys, of which nothing is quoted.
func (c *checker) keys(key, path string) {
	b, ok := c.privateFile(key, path)
	if !ok {
		return
	}
	if _, err := seal.ParseKeys(string(b)); err != nil {
		c.add(Problem{Key: key, Value: show(path), Want: "a file with keys, one in each line: a name, a space, 32 bytes in base64", Hint: err.Error()})
	}
}

// privateFile returns what is in a file of secrets, at most 1 MiB; false: it can't be read, and that
// is said.
func (c *checker) privateFile(key, path string) ([]byte, bool) {
	f, err := os.Open(path)
	if err != nil {
		c.add(Problem{Key: key, Value: show(path), Want: "a file that can be read", Hint: reason(err)})
		return nil, false
	}
	c.private(key, path, f)
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err = errors.Join(err, f.Close()); err != nil {
		c.add(Problem{Key: key, Value: show(path), Want: "a file that can be read", Hint: reason(err)})
		return nil, false
	}
	return b, true
}
