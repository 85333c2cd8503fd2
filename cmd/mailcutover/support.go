package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// maxLogBytes is how much of a log's end goes into a bundle.
const maxLogBytes = 4 << 20

// newSupportCommand returns what somebody else needs who helps.
func newSupportCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "support", Short: "What somebody who helps needs: bundle"}
	var logFile string
	var addresses bool
	bundle := c.command(&cobra.Command{
		Use: "bundle FILE.tar.gz", Short: "Put what the node says of itself into a file, without secrets", Args: cobra.ExactArgs(1),
		Long: "Put what the node says of itself into a new file: versions, settings, nodes, table, agencies,\noperations, spool, alarms, metrics, goroutines, whether the audit log is whole, and with --log\nthe end of its log. Secrets and content of messages are not in it. Addresses and login names\nare replaced by pseudonyms, the same for the same one within a bundle; their domains stay.\n\n" +
			"Look through it before you give it away: reasons that people typed are in it.",
		Example: "  mailcutover support bundle /tmp/mx1.tar.gz --log /var/log/mailcutover.log\n  journalctl -u mailcutover -o cat -n 20000 >/tmp/log; mailcutover support bundle /tmp/mx1.tar.gz --log /tmp/log",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return notOverwritten(fmt.Errorf("bundle: %w", err))
		}
		b := newBundle(f, addresses)
		missing := 0
		client.Support(cmd.Context(), func(p admin.SupportPart) {
			if p.Err != nil {
				missing++
				b.note("%s is missing: %s", p.Name, p.Err)
			}
			if len(p.Content) > 0 {
				b.add(p.Name, p.Content)
			}
		})
		if logFile != "" {
			end, err := endOf(logFile)
			if err != nil {
				missing++
				b.note("log.txt is missing: %s", err)
			}
			b.add("log.txt", end)
		}
		if err := errors.Join(b.close(), f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", args[0], err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %d files", args[0], b.files)
		if missing > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), ", %d are missing: its README.txt says why", missing)
		}
		fmt.Fprintln(cmd.OutOrStdout())
		return nil
	})
	bundle.Flags().StringVar(&logFile, "log", "", "put the end of this file into it, 4 MiB at most")
	bundle.Flags().BoolVar(&addresses, "with-addresses", false, "leave addresses and login names as they are")
	cmd.AddCommand(bundle)
	return cmd
}

// endOf returns the whole lines at the end of a file.
func endOf(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, info.Size()-maxLogBytes)
	b, err := io.ReadAll(io.NewSectionReader(f, from, maxLogBytes))
	if err != nil {
		return nil, err
	}
	if from > 0 {
		for i, c := range b {
			if c == '\n' {
				return b[i+1:], nil
			}
		}
	}
	return b, nil
}

// bundle is a tar file that is being written.
type bundle struct {
	zip   *gzip.Writer
	tar   *tar.Writer
	scrub *scrubber
	notes string
	made  time.Time
	files int
	err   error // the first one
}

func newBundle(w io.Writer, addresses bool) *bundle {
	zip := gzip.NewWriter(w)
	b := &bundle{zip: zip, tar: tar.NewWriter(zip), made: time.Now().UTC()}
	if b.scrub = (&scrubber{}); !addresses {
		b.scrub.key = []byte(rand.Text())
	}
	return b
}

// note notes something for whoever reads the bundle.
func (b *bundle) note(format string, args ...any) {
	b.notes += fmt.Sprintf(format, args...) + "\n"
}

// add adds a file, without what doesn't belong there.
func (b *bundle) add(name string, content []byte) {
	content = b.scrub.text(content)
	b.err = cmp.Or(b.err, b.tar.WriteHeader(&tar.Header{Name: "mailcutover/" + name, Mode: 0o600, Size: int64(len(content)), ModTime: b.made}))
	if b.err == nil {
		_, b.err = b.tar.Write(content)
	}
	b.files++
}

func (b *bundle) close() error {
	who := "Addresses and login names are pseudonyms: the same one has the same pseudonym in this bundle, and another in the next. Their key was never stored."
	if b.scrub.key == nil {
		who = "Addresses and login names are as they are: treat it as personal data."
	}
	b.add("README.txt", []byte("Support bundle of mailcutover, made "+b.made.Format(time.RFC3339)+" by version "+version().Version+".\n"+who+"\nSecrets and content of messages are left out.\n\n"+b.notes))
	return errors.Join(b.err, b.tar.Close(), b.zip.Close())
}
