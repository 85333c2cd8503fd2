// Command exchangelike is a mail platform that behaves like Microsoft Exchange where that hurts
// a proxy in front of it. It is a test's source platform, as a process of its own.
//
// Every quirk is a flag and off by default, so that a test shows one at a time:
//
//	-tarpit 5s           each 5yz comes so late (receive connector, TarpitInterval)
//	-max-per-source 20   421 4.3.2 for connections beyond (MaxInboundConnectionPerSource)
//	-idle 5m             421 4.4.1 after so long without a byte (ConnectionInactivityTimeout)
//	-total 10m           421 4.4.2 on a connection so old, busy or not (ConnectionTimeout)
//	-432 a@x,b@x=2       a message for them is answered 432 4.3.2; =2: twice, then taken
//	-452 3               the first three MAIL are answered 452 4.3.1 (back pressure); -1: all
//	-unknown a@x,b@x     550 5.1.10 at RCPT
//	-dedupe              a Message-ID that a mailbox has is answered 250 and dropped
//	-rewrite             headers and MIME boundaries of what is stored are its own
//	-smtputf8            announces SMTPUTF8 (from Exchange 2019 on)
//
// Always: its EHLO list with SIZE 37748736, CHUNKING and BINARYMIME, its texts, and that
// a bare LF is taken as it comes (BareLinefeedRejectionEnabled is false by default). It
// offers neither STARTTLS nor a login.
//
// It prints "listening HOST:PORT" when it is ready, "quirk" and a flag's name each time
// that a quirk showed (but for tarpit and rewrite), and ends on SIGTERM. With -record FILE
// each message answered 250 is a line of JSON there, see [Record], written before the
// answer: what is not in the file was not taken, even if the process is killed. A message
// whose record can't be written is answered 451.
//
// Tests start it by peers.StartExchange.
package main
