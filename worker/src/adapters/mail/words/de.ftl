### Was Mails und Benachrichtigungen sagen. Namen von anderswo kommen in Anführungszeichen und auf einer Zeile.

hello = Guten Tag,
hello-name = Guten Tag { $name },
month = { $month ->
    [1] Januar
    [2] Februar
    [3] März
    [4] April
    [5] Mai
    [6] Juni
    [7] Juli
    [8] August
    [9] September
    [10] Oktober
    [11] November
   *[12] Dezember
}
moment = { $day }. { $month } { $year }, { $clock } UTC

## Ein Token, das der Leser verwenden soll

token = Oder geben Sie dieses Token dort ein, wo Sie danach gefragt werden:

invitation-subject = Einladung zu { $tenant }
invitation-by = { $inviter } lädt Sie zu { $tenant } ein.
invitation-by-nobody = Sie sind zu { $tenant } eingeladen.
invitation-link = Um anzunehmen, öffnen Sie diesen Link:
invitation-end = Die Einladung gilt bis { $time }. Sie ist nur für Sie: Bitte leiten Sie diese Mail nicht weiter. Wenn Sie keine Einladung erwarten, brauchen Sie nichts zu tun.

password-reset-subject = Ihr neues Passwort
password-reset-asked = jemand, hoffentlich Sie, hat für diese Adresse ein neues Passwort verlangt.
password-reset-link = Um eines zu wählen, öffnen Sie diesen Link:
password-reset-end = Das geht einmal, bis { $time }. Wenn Sie es nicht waren, brauchen Sie nichts zu tun: Ihr Passwort bleibt, wie es ist.

## Benachrichtigungen

operation-failed = { $verb } von { $target } ist fehlgeschlagen
ticket-answered = Ticket { $number } wurde beantwortet
invitation-accepted = Eine Einladung wurde angenommen
key-expiring = Ein API-Schlüssel läuft bald ab
key-expiring-body = { $name } läuft am { $time } ab.
quota-nearly-used = Ein Kontingent ist fast aufgebraucht
quota-nearly-used-body = { $used } von { $limit } { $amount } sind verbraucht.

broadcast-subject = Mitteilung in { $tenant }
broadcast-of-tenant = Ein Admin von { $tenant } hat etwas mitgeteilt: { $title }. Melden Sie sich an, um es zu lesen.

digest-subject = { $count } Benachrichtigungen von { $tenant }
digest-more = Und { $count } weitere.
notified-by = In dieser Mail geht es um { $tenant }. Um keine solchen Mails mehr zu bekommen, öffnen Sie diesen Link:

