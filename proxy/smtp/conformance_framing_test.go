package smtp

import (
	"strconv"
	"strings"
	"time"
)

// conformanceTable is the whole table, by subject.
func conformanceTable() []conformance {
	var all []conformance
	for _, part := range [][]conformance{framingCases(), bdatCases(), addressCases(), parameterCases(), sessionCases()} {
		all = append(all, part...)
	}
	return all
}

// framingCases are about where a message and a command end.
func framingCases() []conformance {
	long := func(n int) string { return strings.Repeat("x", n) }
	smuggle := func(sequence string) []step {
		return byData("Subject: good\r\n\r\nbody" + sequence + evil)
	}
	// smuggled is the content that arrives when sequence was read as content.
	smuggled := func(sequence string) outcome {
		return one("Subject: good\r\n\r\nbody" + sequence + strings.TrimSuffix(evil, ".\r\n"))
	}
	return []conformance{
		{name: "S1 LF . LF", steps: smuggle("\n.\n"), want: smuggled("\r\n.\r\n")},
		{name: "S2 LF . CR", steps: smuggle("\n.\r"), want: smuggled("\r\n.\r\n")},
		{name: "S3 CR . LF", steps: smuggle("\r.\n"), want: smuggled("\r\n.\r\n")},
		{name: "S4 CR . CR", steps: smuggle("\r.\r"), want: smuggled("\r\n.\r\n")},
		{name: "S5 LF . CRLF", steps: smuggle("\n.\r\n"), want: smuggled("\r\n.\r\n")},
		{name: "S6 CR . CRLF", steps: smuggle("\r.\r\n"), want: smuggled("\r\n.\r\n")},
		{name: "S7 CRLF NUL . CRLF", steps: smuggle("\r\n\x00.\r\n"), want: smuggled("\r\n\x00.\r\n")},
		{name: "S8 CRLF . LF", steps: smuggle("\r\n.\n"), want: smuggled("\r\n\r\n")},
		{name: "S9 CRLF . CR", steps: smuggle("\r\n.\r"), want: smuggled("\r\n\r\n")},
		{name: "S10 CRLF . CRCRLF", steps: smuggle("\r\n.\r\r\n"), want: smuggled("\r\n\r\n\r\n")},
		{name: "S11 CRCRLF . CRCRLF", steps: smuggle("\r\r\n.\r\r\n"), want: smuggled("\r\n\r\n\r\n\r\n")},
		{
			name:  "S12 CRCRLF . CRLF ends the message, and the connection",
			steps: smuggle("\r\r\n.\r\n"),
			want:  outcome{"220 250 250 250 354 250 421", []string{accepted + "Subject: good\r\n\r\nbody\r\n\r\n"}},
		},
		{name: "S14 over the size limit", limit: 20, steps: smuggle("\n.\r\n"), want: outcome{codes: "220 250 250 250 354 552 221"}},
		{name: "S15 first byte is a dot", steps: byData(".hidden\r\n.\r\n"), want: one("hidden\r\n")},
		{name: "S15 doubled dot", steps: byData("..\r\n..x\r\n.\r\n"), want: one(".\r\n.x\r\n")},
		{name: "S15 empty message", steps: byData(".\r\n"), want: one("")},
		{name: "S17 bare LF ends commands", steps: []step{send("EHLO x\nMAIL FROM:<a@out.example>\n" + quit)}, want: outcome{codes: "220 500 500 221"}},
		{
			name:  "S18 message behind DATA in one segment",
			steps: []step{send(hello + envelope + "DATA\r\nSubject: early\r\n\r\nbody\r\n.\r\n" + evil + quit)},
			want:  outcome{codes: "220 250 250 250 554"},
		},
		{name: "S19 commands before the greeting", steps: []step{send(hello + "NOOP\r\n" + quit)}, want: outcome{codes: "220 250 250 221"}},
		{name: "S20 line of 998 bytes", steps: byData(long(998) + "\r\n.\r\n"), want: one(long(998) + "\r\n")},
		{name: "S20 line of 2001 bytes", steps: byData(long(2001) + "\r\n.\r\n"), want: one(long(2001) + "\r\n")},
		{name: "S20 line of 5000 bytes", steps: byData(long(5000) + "\r\n.\r\n"), want: one(long(5000) + "\r\n")},
		{name: "S20 line of 1 MB", steps: byData(long(1<<20) + "\r\n.\r\n"), want: one(long(1<<20) + "\r\n")},
		{name: "S21 command line of 513 bytes", steps: commands("NOOP " + long(506)), want: outcome{codes: "220 250 250 221"}},
		{name: "S21 command line of 5 KB", steps: commands("NOOP "+long(5000), "NOOP"), want: outcome{codes: "220 250 500 250 221"}},
		{name: "S21 command line of 1 MB without end", steps: []step{send(hello + "NOOP " + long(1<<20)), stay}, want: outcome{codes: "220 250 500"}},
		{name: "CR CR LF within a message", steps: byData("a\r\r\nb\r\n.\r\n"), want: one("a\r\n\r\nb\r\n")},
		{name: "NUL and 8-bit bytes", steps: byData("a\x00b\xff\r\n.\r\n"), want: one("a\x00b\xff\r\n")},
		{
			name: "a pause within DATA ends the connection",
			read: 2 * time.Second,
			steps: []step{
				send(hello + envelope + "DATA\r\n"), await("354"),
				send("Subject: slow\r\n\r\n"), step{await: "554"}, send(evil), stay,
			},
			want: outcome{codes: "220 250 250 250 354 421"},
		},
		{
			name:  "the connection ends within DATA",
			steps: []step{send(hello + envelope + "DATA\r\n"), await("354"), send("Subject: cut\r\n\r\nbody\r\n")},
			want:  outcome{codes: "220 250 250 250 354"},
		},
		{
			name: "two messages, the second pipelined behind the first's dot",
			steps: []step{
				send(hello + envelope + "DATA\r\n"), await("354"),
				send("1\r\n.\r\n" + envelope + "DATA\r\n"), await("354"), send("2\r\n.\r\n" + quit),
			},
			want: outcome{"220 250 250 250 354 250 250 250 354 250 221", []string{accepted + "1\r\n", accepted + "2\r\n"}},
		},
	}
}

// bdatCases are about RFC 3030.
func bdatCases() []conformance {
	chunks := func(parts ...string) []step {
		var all strings.Builder
		all.WriteString(hello + envelope)
		for i, p := range parts {
			all.WriteString("BDAT " + strconv.Itoa(len(p)))
			if i == len(parts)-1 {
				all.WriteString(" LAST")
			}
			all.WriteString("\r\n" + p)
		}
		return []step{send(all.String() + quit)}
	}
	return []conformance{
		{name: "BDAT one chunk", steps: chunks("Subject: x\r\n\r\nbody\r\n"), want: outcome{"220 250 250 250 250 221", []string{accepted + "Subject: x\r\n\r\nbody\r\n"}}},
		{name: "BDAT larger than a command line, in one segment", steps: chunks(strings.Repeat("0123456789\r\n", 1000)), want: outcome{"220 250 250 250 250 221", []string{accepted + strings.Repeat("0123456789\r\n", 1000)}}},
		{name: "BDAT two chunks, cut within CRLF", steps: chunks("a\r", "\nb\r\n"), want: outcome{"220 250 250 250 250 250 221", []string{accepted + "a\r\nb\r\n"}}},
		{name: "BDAT empty last chunk", steps: chunks("a\r\n", ""), want: outcome{"220 250 250 250 250 250 221", []string{accepted + "a\r\n"}}},
		{name: "BDAT keeps dots", steps: chunks(".\r\n..\r\n.\r\n"), want: outcome{"220 250 250 250 250 221", []string{accepted + ".\r\n..\r\n.\r\n"}}},
		{name: "BDAT bare line ends", steps: chunks("a\nb\rc\r\n"), want: outcome{"220 250 250 250 250 221", []string{accepted + "a\r\nb\r\nc\r\n"}}},
		{name: "BDAT message without line end", steps: chunks("a"), want: outcome{"220 250 250 250 250 221", []string{accepted + "a\r\n"}}},
		{name: "BDAT over the size limit", limit: 20, steps: chunks("0123456789\r\n", "0123456789\r\n"), want: outcome{codes: "220 250 250 250 250 552 221"}},
		{name: "BDAT over the size limit, further chunks", limit: 20, steps: chunks(strings.Repeat("x", 30), "MAIL FROM:<evil@out.example>\r\n", "y"), want: outcome{codes: "220 250 250 250 552 503 503 221"}},
		{name: "Q5 BDAT of 2^63 bytes", steps: []step{send(hello + envelope + "BDAT 9223372036854775808\r\nx\r\n"), stay}, want: outcome{codes: "220 250 250 250 501"}},
		{name: "Q5 BDAT without size", steps: []step{send(hello + envelope + "BDAT LAST\r\nMAIL FROM:<evil@out.example>\r\n"), stay}, want: outcome{codes: "220 250 250 250 501"}},
		{name: "Q5 BDAT without RCPT", steps: []step{send(hello + "MAIL FROM:<a@out.example>\r\nBDAT 7 LAST\r\nRSET\r\nxNOOP\r\n" + quit)}, want: outcome{codes: "220 250 250 503 250 221"}},
		{name: "Q5 BDAT without MAIL", steps: []step{send(hello + "BDAT 6 LAST\r\nNOOP\r\nNOOP\r\n" + quit)}, want: outcome{codes: "220 250 503 250 221"}},
		{name: "Q5 RSET between chunks", steps: []step{send(hello + envelope + "BDAT 3\r\na\r\nRSET\r\n" + envelope + "BDAT 3 LAST\r\nb\r\n" + quit)}, want: outcome{"220 250 250 250 250 250 250 250 250 221", []string{accepted + "b\r\n"}}},
		{name: "MAIL and DATA between chunks", steps: []step{send(hello + envelope + "BDAT 3\r\na\r\nMAIL FROM:<x@out.example>\r\nDATA\r\nNOOP\r\nBDAT 3 LAST\r\nb\r\n" + quit)}, want: outcome{"220 250 250 250 250 503 503 250 250 221", []string{accepted + "a\r\nb\r\n"}}},
		{name: "QUIT between chunks", steps: []step{send(hello + envelope + "BDAT 3\r\na\r\n" + quit)}, want: outcome{codes: "220 250 250 250 250 221"}},
		{name: "the connection ends within a chunk", steps: []step{send(hello + envelope + "BDAT 30 LAST\r\na\r\n")}, want: outcome{codes: "220 250 250 250"}},
	}
}
