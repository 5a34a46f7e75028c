"use strict";
// Of the elements with the class "panel" the one that is chosen is shown.
{
  const choice = document.getElementById("panel");
  const panels = [...document.querySelectorAll(".panel")];
  const show = () => panels.forEach((panel, number) => { panel.hidden = number !== Number(choice.value); });
  choice.addEventListener("change", show);
  show();
}
