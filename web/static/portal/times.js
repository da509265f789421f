/** Times are written in UTC by the service; here they are written in the reader's own time zone. */
const locale = document.documentElement.lang;
for (const place of document.querySelectorAll("time[datetime]")) {
  const options = { day: "numeric", month: place.dataset.date === "long" ? "long" : "short", year: "numeric" };
  if (place.dataset.time) Object.assign(options, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  place.textContent = new Intl.DateTimeFormat(locale === "en" ? "en-GB" : locale, options).format(new Date(place.dateTime));
}
