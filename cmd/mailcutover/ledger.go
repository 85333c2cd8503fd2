package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newLedgerCommand returns the commands about the ledger.
func newLedgerCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "ledger", Short: "The record of deliveries"}
	cmd.AddCommand(newLedgerList(c), newLedgerExport(c))
	return cmd
}

func newLedgerList(c *connection) *cobra.Command {
	var q admin.LedgerQuery
	var since, until moment
	var asCSV bool
	list := c.command(&cobra.Command{
		Use: "list --agency AGENCY --since TIME", Short: "What was handed to platforms, through all nodes, the newest first; table, --json or --csv", Args: cobra.NoArgs,
		Example: "  mailcutover ledger list --agency health --since '2026-03-01 08:30' --until '2026-03-01 09:15' --platform ox --result refused",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		q.Since, q.Until = since.Time, until.Time
		found, err := client.Deliveries(cmd.Context(), q)
		if err != nil {
			return err
		}
		warnMissing(cmd, found.Missing, "and what went through it is not here")
		warn(cmd, found.Notes, found.More, len(found.Deliveries), "rows")
		if asCSV {
			return printDeliveries(cmd.OutOrStdout(), found.Deliveries)
		}
		return c.show(cmd, found.Deliveries, func(w io.Writer) {
			var rows [][]string
			for _, d := range found.Deliveries {
				answer := d.Answer
				if d.Code != 0 {
					answer = fmt.Sprintf("%d %s", d.Code, d.Answer)
				}
				rows = append(rows, []string{local(&d.Time), d.Node, d.Transaction, "<" + d.From + ">", d.Recipient, size(d.Size), d.Platform, d.Result, answer})
			}
			table(w, []string{"TIME", "NODE", "TRANSACTION", "FROM", "RECIPIENT", "SIZE", "PLATFORM", "RESULT", "ANSWER"}, rows)
		})
	})
	addDeliveries(list, &q.Agency, &q.All, &q.Platform, &q.Result)
	addSpan(list, &since, &until)
	list.Flags().IntVar(&q.Limit, "limit", 10_000, "at most so many rows, the newest, up to 100000")
	list.Flags().BoolVar(&asCSV, "csv", false, "print CSV, with times in UTC")
	require(list, "since")
	return list
}

// addDeliveries adds the flags that say which deliveries.
func addDeliveries(cmd *cobra.Command, agency *string, all *bool, platform, result *string) {
	cmd.Flags().StringVar(agency, "agency", "", "of this agency")
	cmd.Flags().BoolVar(all, "all", false, "of all agencies, and of fixed addresses")
	cmd.MarkFlagsOneRequired("agency", "all")
	cmd.MarkFlagsMutuallyExclusive("agency", "all")
	cmd.Flags().StringVar(platform, "platform", "", "handed to this platform")
	cmd.Flags().StringVar(result, "result", "", "that ended so: delivered, 'not acknowledged', refused, 'in doubt', 'not sent' or pending")
}

func newLedgerExport(c *connection) *cobra.Command {
	var e admin.LedgerExport
	var from, to moment
	var form, output string
	cmd := c.command(&cobra.Command{
		Use: "export --agency AGENCY --from TIME --to TIME --output FILE", Short: "Which messages went where, when and by which mapping, for the data protection officer", Args: cobra.NoArgs,
		Long: "Writes what the ledgers of all nodes have, in the order of time: a row for each recipient of\n" +
			"each message that was handed to a platform, with the epoch and the digest of the mapping by\n" +
			"which it was decided. Neither subjects nor content are in it.\n\n" +
			"FILE gets the rows, FILE.manifest.json what they are: how many, from which nodes, which\n" +
			"nodes did not answer, and the SHA-256 of FILE. It takes a token of the role admin; the\n" +
			"reason stands in the audit log of the node that was asked.",
		Example: "  mailcutover ledger export --agency health --from '2026-03-01 08:30' --to '2026-03-01 12:00' --output health.csv --reason 'DPO, case 17'",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		e.From, e.To = from.Time, to.Time
		if e.To.IsZero() {
			e.To = time.Now()
		}
		if form != "csv" && form != "jsonl" {
			return &usageError{err: fmt.Errorf("--format %q: want csv or jsonl", form), command: cmd.CommandPath()}
		}
		m, err := exportTo(output, form, func(each func(*admin.Delivery) error) (admin.Manifest, error) {
			return client.ExportLedger(cmd.Context(), e, each)
		})
		if err != nil {
			return err
		}
		warnMissing(cmd, m.Missing, "and what went through it is not here")
		for _, note := range m.Notes {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", oneLine(note))
		}
		return c.show(cmd, m, func(w io.Writer) {
			fmt.Fprintf(w, "%s in %s, of %s\n", firstOf(count(m.Rows, "row", "rows"), "no rows"), printable(output), firstOf(count(len(m.Nodes), "node", "nodes"), "no node"))
			fmt.Fprintf(w, "sha256 %s, see %s\n", m.FileSHA256, printable(output+manifestSuffix))
			if !m.Complete {
				fmt.Fprintln(w, "NOT COMPLETE: see the warnings, which are in the manifest too")
			}
		})
	})
	addDeliveries(cmd, &e.Agency, &e.All, &e.Platform, &e.Result)
	cmd.Flags().Var(&from, "from", "handed over from then on: a time, or how long ago, such as 90m or 3d (required)")
	cmd.Flags().Var(&to, "to", "and before then (default: now)")
	cmd.Flags().StringVar(&form, "format", "csv", "csv, with times in UTC, or jsonl")
	cmd.Flags().StringVar(&output, "output", "", "file to write, which must not exist (required)")
	require(cmd, "from", "output")
	addReason(cmd, &e.Reason)
	return cmd
}

// manifestSuffix is what the manifest's file has behind the export's name.
const manifestSuffix = ".manifest.json"

// exported is a manifest with what was written because of it.
type exported struct {
	admin.Manifest
	File       string `json:"file"`
	Format     string `json:"format"`
	FileSHA256 string `json:"file_sha256"`
}

// exportTo writes an export and its manifest. A file that isn't whole is removed again.
func exportTo(path, form string, run func(each func(*admin.Delivery) error) (admin.Manifest, error)) (m exported, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return m, notOverwritten(fmt.Errorf("write the export: %w", err))
	}
	sum := sha256.New()
	out := bufio.NewWriter(io.MultiWriter(f, sum))
	each, end := writeJSONLines(out)
	if form == "csv" {
		each, end = writeCSV(out)
	}
	m.Manifest, err = run(each)
	if err == nil {
		err = errors.Join(end(), out.Flush(), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return m, errors.Join(err, os.Remove(path))
	}
	m.File, m.Format, m.FileSHA256 = filepath.Base(path), form, hex.EncodeToString(sum.Sum(nil))
	b, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = os.WriteFile(path+manifestSuffix, append(b, '\n'), 0o600)
	}
	if err != nil {
		return m, fmt.Errorf("write the manifest: %w", err)
	}
	return m, nil
}

func writeJSONLines(w io.Writer) (each func(*admin.Delivery) error, end func() error) {
	e := json.NewEncoder(w)
	return func(d *admin.Delivery) error { return e.Encode(d) }, func() error { return nil }
}

// deliveryColumns are those of CSV.
var deliveryColumns = []string{"time", "answered", "node", "transaction", "agency", "mailbox", "epoch", "mapping", "from", "recipient", "message_id", "size", "platform", "host", "result", "code", "answer"}

// writeCSV writes CSV, the columns' names first. A field that a program for tables would take for
// a formula gets an apostrophe before it: who sends mail chooses some of them.
func writeCSV(w io.Writer) (each func(*admin.Delivery) error, end func() error) {
	out := csv.NewWriter(w)
	first := out.Write(deliveryColumns)
	each = func(d *admin.Delivery) error {
		answered, code := "", ""
		if d.Answered != nil {
			answered = d.Answered.UTC().Format(time.RFC3339Nano)
		}
		if d.Code != 0 {
			code = strconv.Itoa(d.Code)
		}
		row := []string{d.Time.UTC().Format(time.RFC3339Nano), answered, d.Node, d.Transaction, d.Agency, d.Mailbox, d.Epoch, d.Mapping, d.From, d.Recipient, d.MessageID,
			strconv.FormatInt(d.Size, 10), d.Platform, d.Host, d.Result, code, d.Answer}
		for i, cell := range row {
			if row[i] = oneLine(cell); cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
				row[i] = "'" + row[i]
			}
		}
		return errors.Join(first, out.Write(row))
	}
	return each, func() error {
		out.Flush()
		return errors.Join(first, out.Error())
	}
}

// printDeliveries writes rows as CSV.
func printDeliveries(w io.Writer, list []admin.Delivery) error {
	each, end := writeCSV(w)
	for i := range list {
		if err := each(&list[i]); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	if err := end(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
