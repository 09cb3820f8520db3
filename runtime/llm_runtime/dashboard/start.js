// The choice of the visible view, and the start of the page.

const views = { overview: refresh, requests: listRequests, spend: listSpend, models: listModels, playground: listModels }

function choose() {
  const chosen = Object.hasOwn(views, location.hash.slice(1)) ? location.hash.slice(1) : "overview"
  for (const view of Object.keys(views)) $(view).hidden = view !== chosen
  for (const link of document.querySelectorAll("nav a"))
    if (link.hash === `#${chosen}`) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  if (!$("main").hidden) views[chosen]()
}

addEventListener("hashchange", choose)
document.addEventListener("visibilitychange", refresh)
setInterval(() => { if (!document.hidden && !$("requests").hidden && document.body.className === "up") listRequests() }, EVERY_MS)
choose()
refresh()
